"""Ed25519 keys (RFC 8032) in PEM files, of logs and of models: made, read, and named by a fingerprint."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from secure_infer import whole
from secure_infer.errors import SettingsError

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)


def make(path: Path, what: str) -> None:
    """A new private key in a new file that its owner alone can read. what: names the key in errors. Raises SettingsError."""
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        whole.create(path, data)
    except FileExistsError:
        raise SettingsError(f"{what}: {path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise SettingsError(f"{what}: {path} cannot be made ({error.strerror})") from error


def private(path: Path, what: str) -> Ed25519PrivateKey:
    """The key of that file. Raises SettingsError, also where others than its owner can read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{what}: {path} can be used by others than its owner; make it 0600")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"{what}: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{what}: {path} is not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{what}: {path} holds another kind of key; expected Ed25519")
    return key


def publics(path: Path, what: str) -> list[Ed25519PublicKey]:
    """The keys of that file, one or more. Raises SettingsError."""
    try:
        found = [load_pem_public_key(pem) for pem in _PEM.findall(path.read_bytes())]
    except OSError as error:
        raise SettingsError(f"{what}: {path} cannot be read ({error.strerror})") from error
    except (ValueError, UnsupportedAlgorithm):
        found = []
    keys = [key for key in found if isinstance(key, Ed25519PublicKey)]
    if not keys:
        raise SettingsError(f"{what}: {path} holds no Ed25519 public key in PEM")
    return keys


def pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def raw(key: Ed25519PublicKey) -> bytes:
    """Its 32 bytes."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, the first 16 bytes in hex."""
    return hashlib.sha256(raw(key)).hexdigest()[:32]
