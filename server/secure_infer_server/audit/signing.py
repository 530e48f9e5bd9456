"""The key that signs checkpoints: Ed25519 (RFC 8032), made on the first start, readable by its owner only."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from secure_infer.errors import SettingsError

CHECKPOINT, HEAD = "checkpoint", "head"
"""What is signed: a checkpoint in the log, or the head beside it. Neither passes for the other."""

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)


def message(kind: str, log: str, sequence: int, digest: str) -> bytes:
    """What a signature covers: the log's id, and the hash of that many entries."""
    return f"secure-infer audit {kind}\n{log}\n{sequence}\n{digest}\n".encode()


class Signer:
    """Signs with the key of a file."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = fingerprint(key.public_key())

    @classmethod
    def of(cls, path: Path) -> Signer:
        """The key of that file, which is made where there is none. Raises SettingsError, also where others can read it."""
        try:
            if not path.exists():
                data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            elif path.stat().st_mode & 0o077:
                raise SettingsError(f"audit key: {path} can be used by others than its owner; make it 0600")
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise SettingsError(f"audit key: {path} cannot be read or made ({error.strerror})") from error
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SettingsError(f"audit key: {path} is not an unencrypted private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"audit key: {path} holds another kind of key; expected Ed25519")
        return cls(key)

    def sign(self, kind: str, log: str, sequence: int, digest: str) -> str:
        """The signature in hex."""
        return self._key.sign(message(kind, log, sequence, digest)).hex()


class Verifier:
    """Knows signatures of any of several keys: a log outlives the keys that sign it."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = {fingerprint(key): key for key in keys}

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Verifier:
        """The keys of PEM files, one or more in each. Raises SettingsError."""
        keys = []
        for path in paths:
            try:
                found = [load_pem_public_key(pem) for pem in _PEM.findall(path.read_bytes())]
            except OSError as error:
                raise SettingsError(f"audit public key: {path} cannot be read ({error.strerror})") from error
            except (ValueError, UnsupportedAlgorithm):
                found = []
            mine = [key for key in found if isinstance(key, Ed25519PublicKey)]
            if not mine:
                raise SettingsError(f"audit public key: {path} holds no Ed25519 public key in PEM")
            keys += mine
        return cls(keys)

    def verify(self, key: object, signature: object, kind: str, log: object, sequence: int, digest: str) -> bool:
        """Whether the signature (hex) is of the key of that fingerprint, and that key is known."""
        known = self._keys.get(key) if isinstance(key, str) else None
        if known is None or not isinstance(signature, str) or not isinstance(log, str):
            return False
        try:
            known.verify(bytes.fromhex(signature), message(kind, log, sequence, digest))
        except (ValueError, InvalidSignature):
            return False
        return True


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, the first 16 bytes in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]
