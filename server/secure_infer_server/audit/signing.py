"""The key that signs checkpoints: Ed25519 (RFC 8032), made on the first start, readable by its owner only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secure_infer_server import ed25519

CHECKPOINT, HEAD = "checkpoint", "head"
"""What is signed: a checkpoint in the log, or the head beside it. Neither passes for the other."""


def message(kind: str, log: str, sequence: int, digest: str) -> bytes:
    """What a signature covers: the log's id, and the hash of that many entries."""
    return f"secure-infer audit {kind}\n{log}\n{sequence}\n{digest}\n".encode()


class Signer:
    """Signs with the key of a file."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = ed25519.pem(key.public_key())
        self.fingerprint = ed25519.fingerprint(key.public_key())

    @classmethod
    def of(cls, path: Path) -> Signer:
        """The key of that file, which is made where there is none. Raises SettingsError, also where others can read it."""
        if not path.exists():
            ed25519.make(path, "audit key")
        return cls(ed25519.private(path, "audit key"))

    def sign(self, kind: str, log: str, sequence: int, digest: str) -> str:
        """The signature in hex."""
        return self._key.sign(message(kind, log, sequence, digest)).hex()


class Verifier:
    """Knows signatures of any of several keys: a log outlives the keys that sign it."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = {ed25519.fingerprint(key): key for key in keys}

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Verifier:
        """The keys of PEM files, one or more in each. Raises SettingsError."""
        return cls([key for path in paths for key in ed25519.publics(path, "audit public key")])

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
