"""A file of many encrypted messages: the header it begins with, and the key that comes of it.

    header   b"secure-infer sealed 1\\n", how the key is had (1), salt (16), proof (28)
    sealed   nonce (12), ciphertext, tag (16)

The key comes of a passphrase by Argon2id (RFC 9106, its second recommended choice: 64 MiB, 3 passes), or is a provider's (a
function that gives 32 bytes that cannot be guessed; `providers` has some, above this module), and goes through HKDF-SHA256 with
the file's purpose, so that no file passes for one of another purpose. The cipher is ChaCha20-Poly1305 with random nonces
(fewer than 2^32 messages a file). The proof is an empty message: whoever can open it has the right key.

    lock = Lock.new("correct horse battery staple", b"record")
    file.write(lock.header)
    file.write(lock.seal(entry, context=b"1"))  # the context says where a message belongs

A file that is one message and is replaced as a whole is `ringfile`'s.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_infer.errors import CannotUnlock, SettingsError

KEY_BYTES = 32
LEAST_PASSPHRASE = 8
Secret = str | Callable[[], bytes]
"""What opens a file: a passphrase, or a provider's key."""

MAGIC = b"secure-infer sealed 1\n"
NONCE_BYTES, TAG_BYTES = 12, 16
OVERHEAD = NONCE_BYTES + TAG_BYTES

_FIELDS = struct.Struct(f">{len(MAGIC)}sB16s")
HEADER_BYTES = _FIELDS.size + OVERHEAD


class Lock:
    """The key of one file; `header` is what the file begins with. The key stays in memory as long as this object."""

    def __init__(self, header: bytes, root: bytes, purpose: bytes) -> None:
        """Made by `new` and `of`."""
        self.header = header
        self._root, self._purpose = root, purpose
        self._cipher = ChaCha20Poly1305(self.key(b"cipher"))

    @classmethod
    def new(cls, secret: Secret, purpose: bytes) -> Lock:
        """The lock of a new file: a fresh salt. Raises SettingsError for a short passphrase, and what a provider raises."""
        if isinstance(secret, str) and len(secret) < LEAST_PASSPHRASE:
            raise SettingsError(f"passphrase: expected at least {LEAST_PASSPHRASE} characters, got {len(secret)}")
        salt = os.urandom(16)
        fields, root = _FIELDS.pack(MAGIC, _kind(secret), salt), _root(secret, salt)
        proof = cls(fields, root, purpose).seal(b"", context=fields)
        return cls(fields + proof, root, purpose)

    @classmethod
    def of(cls, header: bytes, secret: Secret, purpose: bytes) -> Lock:
        """The lock of a file that begins with `header`. Raises CannotUnlock when the key does not open it."""
        name, fields = purpose.decode(), header[: _FIELDS.size]
        if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
            raise CannotUnlock(f"{name}: the file does not begin as one that was made here")
        _, kind, salt = _FIELDS.unpack(fields)
        if kind != _kind(secret):
            made, given = ("a provider", "a passphrase") if isinstance(secret, str) else ("a passphrase", "a provider")
            raise CannotUnlock(f"{name}: the file was made with {made}, got {given}")
        lock = cls(header, _root(secret, salt), purpose)
        try:
            lock.open(header[_FIELDS.size :], context=fields)
        except CannotUnlock:
            other = "passphrase" if isinstance(secret, str) else "key"
            raise CannotUnlock(f"{name}: it does not open: another {other}, or the file's header was changed") from None
        return lock

    def seal(self, message: bytes, *, context: bytes) -> bytes:
        """`message`, OVERHEAD bytes longer. context: what `open` has to be given as well."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, message, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The message. Raises CannotUnlock when it is not what was sealed, with that context, under this lock."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise CannotUnlock(f"{self._purpose.decode()}: a part of the file is not what was written") from None

    def key(self, name: bytes) -> bytes:
        """32 bytes for a use of their own, always the same of this file."""
        info = b"%b%d:%b%b" % (MAGIC, len(self._purpose), self._purpose, name)
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._root)


def _kind(secret: Secret) -> int:
    return 1 if isinstance(secret, str) else 2


def _root(secret: Secret, salt: bytes) -> bytes:
    if not isinstance(secret, str):
        return HKDF(SHA256(), KEY_BYTES, salt=salt, info=MAGIC).derive(secret())
    try:
        derived = Argon2id(salt=salt, length=KEY_BYTES, iterations=3, lanes=4, memory_cost=64 << 10)
    except UnsupportedAlgorithm:
        raise SettingsError(
            "passphrase: this build of `cryptography` has no Argon2id (it takes OpenSSL 3.2 or newer); take its wheel from "
            "the package index, or a key provider"
        ) from None
    return derived.derive(secret.encode())
