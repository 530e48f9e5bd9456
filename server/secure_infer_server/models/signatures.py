"""Signatures of models: `mine.head.sig` beside `mine.head`, made by `secure-infer sign-model`.

    {"format": 1, "model": "mine", "digest": "<sha256>", "serial": 1763812345678, "key": "<fingerprint>", "signature": "<hex>"}

Ed25519 (RFC 8032) over a prefix that no other signature of this project has, and the JSON of name, digest and serial. So a
changed model, another model's signature and another use of the key are refused. An older version of the same model with its
own, true signature is told by its serial alone (milliseconds since 1970, when it was signed): see `serials`. The digest covers
what changes an answer; the training facts in a head's header are not signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secure_infer import whole
from secure_infer.errors import InvalidHead
from secure_infer_server import ed25519

FORMAT = 1
MAX_BYTES = 4096
MAX_SERIAL = 1 << 53
PREFIX = b"secure-infer model signature 1\n"
WHAT = "model signers"
_FIELDS = {"format": int, "model": str, "digest": str, "serial": int, "key": str, "signature": str}


def signature_of(file: Path) -> Path:
    """Where a model file's signature is."""
    return file.with_name(f"{file.name}.sig")


def message(model: str, digest: str, serial: int) -> bytes:
    """What is signed. digest: in hex."""
    return PREFIX + json.dumps([model, digest, serial]).encode()


@dataclass(frozen=True)
class Signature:
    """As it is in the file. key: the fingerprint of the public key; signature: 64 bytes in hex."""

    model: str
    digest: str
    serial: int
    key: str
    signature: str
    format: int = FORMAT

    @classmethod
    def make(cls, key: Ed25519PrivateKey, model: str, digest: str, serial: int) -> Signature:
        signed = key.sign(message(model, digest, serial)).hex()
        return cls(model, digest, serial, ed25519.fingerprint(key.public_key()), signed)

    @classmethod
    def read(cls, path: Path) -> Signature:
        """Raises InvalidHead for a file that is not there or holds none; nothing is verified."""
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(MAX_BYTES + 1)[:MAX_BYTES])
            if type(found) is not dict or {name: type(value) for name, value in found.items()} != _FIELDS:
                raise ValueError("fields")
        except FileNotFoundError:
            raise InvalidHead(f"{path.name} is missing; sign the model with: secure-infer sign-model") from None
        except OSError as error:
            raise InvalidHead(f"{path.name}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError):
            raise InvalidHead(
                f"{path.name}: not a signature, or cut short; secure-infer sign-model makes one"
            ) from None
        if found["format"] != FORMAT or not 0 <= found["serial"] < MAX_SERIAL:
            raise InvalidHead(f"{path.name}: signature format {found['format']}; this version reads format {FORMAT}")
        return cls(**found)

    def write(self, path: Path) -> None:
        """Raises OSError."""
        whole.write(path, (json.dumps(asdict(self), sort_keys=True) + "\n").encode())


class Signers:
    """Those whose signatures are taken. keys: raw public keys, 32 bytes each."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def of(cls, path: Path) -> Signers:
        """The public keys of a PEM file. Raises SettingsError."""
        return cls(ed25519.raw(key) for key in ed25519.publics(path, WHAT))

    @property
    def fingerprints(self) -> list[str]:
        return [ed25519.fingerprint(key) for key in self._public()]

    def require(self, file: Path, digest: str) -> Signature:
        """The signature of a model file, whose name and digest it has to be of. Raises InvalidHead, which names what is wrong."""
        path = signature_of(file)
        found = Signature.read(path)
        known = {ed25519.fingerprint(key): key for key in self._public()}
        if found.key not in known:
            raise InvalidHead(f"{path.name}: signed by key {found.key[:12]}…; expected {_or(known)}")
        if found.model != file.stem:
            raise InvalidHead(f"{path.name}: it is the signature of model {found.model[:64]!r}, expected {file.stem!r}")
        if found.digest != digest:
            raise InvalidHead(
                f"{path.name}: it signs digest {found.digest[:12]}…, the model has {digest[:12]}…; "
                "the model was changed, or not signed anew"
            )
        try:
            known[found.key].verify(bytes.fromhex(found.signature), message(file.stem, digest, found.serial))
        except (ValueError, InvalidSignature):
            raise InvalidHead(f"{path.name}: the signature is not that of key {found.key[:12]}…") from None
        return found

    def _public(self) -> list[Ed25519PublicKey]:
        return [Ed25519PublicKey.from_public_bytes(key) for key in self._keys]


def _or(fingerprints: Iterable[str]) -> str:
    return " or ".join(f"{each[:12]}…" for each in fingerprints)
