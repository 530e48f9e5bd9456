"""A CA, issuers of tokens with their keys, and contexts as gRPC gives them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secure_infer_server.commands import certs

ISSUER, AUDIENCE = "https://login.example", "secure-infer"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certs.make(tmp_path_factory.mktemp("pki"), ["localhost", "127.0.0.1"], "ward-7", 2)


@pytest.fixture(scope="session")
def private_keys() -> dict[str, Any]:
    return {
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "RS256": rsa.generate_private_key(65537, 2048),
    }


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def jwk(kid: str, algorithm: str, key: Any, **more: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, **more}


def write_jwks(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """In one step, as rotation does it."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"keys": list(entries)}))
    beside.replace(path)


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that holds; a claim given as None is left out."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "nbf": now - 1, "exp": now + 300} | changed
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture
def context(pki: dict[str, Path]) -> Callable[..., Any]:
    """A ServicerContext's readable part: `name` of a certificate, kind of transport, metadata."""

    def made(
        name: str | None = None,
        *metadata: tuple[str, str | bytes],
        kind: bytes = b"ssl",
        peer: str = "ipv4:10.0.0.9:40000",
        **auth: bytes,
    ) -> Any:
        found = {"transport_security_type": [kind]} | {key: [value] for key, value in auth.items()}
        if name is not None:
            found["x509_pem_cert"] = [pki[f"{name}.pem"].read_bytes()]
        return SimpleNamespace(auth_context=lambda: found, invocation_metadata=lambda: metadata, peer=lambda: peer)

    return made
