"""Public keys of token issuers, by `kid`: from a JWKS file (RFC 7517), a key in PEM, or a directory of these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from secure_infer.errors import SettingsError

ALGORITHMS = ("EdDSA", "ES256", "RS256")
"""All of them asymmetric: whoever can check a token must not be able to make one."""

LEAST_RSA_BITS = 2048
MAX_FILE = 1 << 20

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


@dataclass(frozen=True)
class Key:
    """One public key and the only algorithm it is used with."""

    algorithm: str
    public: PublicKey


KeySet = Mapping[str, Key]


def key_files(path: Path) -> list[Path]:
    """The files that `read_keys` reads; of a directory, *.json and *.pem."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in (".json", ".pem") and not file.name.startswith("."))


def read_keys(path: Path, algorithms: Sequence[str]) -> KeySet:
    """All keys of those algorithms, by `kid`. A JWKS may hold other public keys, which are left out. Raises SettingsError for
    none left, a `kid` twice or missing, and for anything secret: a shared key or a private one."""
    found: dict[str, Key] = {}
    for file in key_files(path):
        for kid, key in _keys_of(file):
            if kid in found:
                raise SettingsError(f"token keys: {file} holds the kid {kid!r} a second time")
            if key is not None and key.algorithm in algorithms:
                found[kid] = key
    if not found:
        raise SettingsError(f"token keys: {path} holds no public key for {', '.join(algorithms)}")
    return found


def _keys_of(file: Path) -> list[tuple[str, Key | None]]:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(f"token keys: {file} cannot be read ({error.strerror})") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"token keys: {file} is larger than {MAX_FILE} bytes")
    if file.suffix == ".json":
        return [_of_jwk(file, entry) for entry in _entries(file, data)]
    if b"PRIVATE" in data:
        raise SettingsError(f"token keys: {file} holds a private key; it belongs to the issuer alone, so replace it")
    try:
        public = load_pem_public_key(data)
    except Exception:  # cryptography names many, and the text of none may be shown
        raise SettingsError(f"token keys: {file} is not a public key in PEM") from None
    key = _usable(public)
    if key is None:
        raise SettingsError(f"token keys: {file}: expected Ed25519, P-256 or RSA of {LEAST_RSA_BITS} bits or more")
    return [(file.stem, key)]


def _entries(file: Path, data: bytes) -> list[dict[str, Any]]:
    try:
        entries = json.loads(data)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f'token keys: {file} is not a JWKS: expected an object with a list "keys"')
    return entries


def _of_jwk(file: Path, entry: dict[str, Any]) -> tuple[str, Key | None]:
    kid = entry.get("kid")
    if not isinstance(kid, str) or not kid:
        raise SettingsError(f"token keys: {file} holds a key without a kid")
    if entry.get("kty") == "oct" or "d" in entry or "k" in entry:
        raise SettingsError(
            f"token keys: {file}: the key {kid!r} is secret; give public keys only, and replace that one"
        )
    if entry.get("use", "sig") != "sig":
        return kid, None
    try:
        public = jwt.PyJWK(entry).key
    except jwt.PyJWTError:
        return kid, None
    key = _usable(public)
    declared = entry.get("alg")
    return kid, key if key is not None and declared in (None, key.algorithm) else None


def _usable(public: object) -> Key | None:
    if isinstance(public, Ed25519PublicKey):
        return Key("EdDSA", public)
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return Key("ES256", public)
    if isinstance(public, RSAPublicKey) and public.key_size >= LEAST_RSA_BITS:
        return Key("RS256", public)
    return None
