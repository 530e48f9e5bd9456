"""What the servers under attack are given: models, certificates, rules and a configuration; and what clients know of them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secure_infer.heads import Head, Layer, Linear, ReLU, Square
from secure_infer.mpc.sharefile import share_model
from secure_infer_server.callers import authority
from secure_infer_server.commands import certs

HOST = "127.0.0.1"
HONEST, HOSTILE, UPLOADER, STRANGER, STOLEN = "ward-7", "hostile", "uploader", "stranger", "it-anna"
IDENTITIES = (HONEST, HOSTILE, UPLOADER, STRANGER, STOLEN)
"""Callers by certificate. No rule of the policy allows the stranger anything; the last one is an operator's, in hands that have
her certificate and not her one-time codes."""

ISSUER, AUDIENCE = "https://login.example", "secure-infer"
_POLICY = f"""
[roles]
client = ["cn:{HONEST}", "cn:{HOSTILE}", "cn:{UPLOADER}", "jwt:*"]
operator = ["cn:{STOLEN}"]
[[allow]]
roles = ["client", "operator"]
methods = ["*"]
"""
_CONFIGURATION = """
models = "models"
listen = "127.0.0.1:0"
tls_cert = "pki/server.pem"
tls_key = "pki/server.key"
client_ca = "pki/ca.pem"
[callers]
policy = "policy.toml"
second_factor = {{ secrets = "otp.toml" }}
[[callers.issuers]]
name = "{issuer}"
audience = "{audience}"
keys = "issuer.pem"
[budgets]
path = "budgets.sqlite"
answer_file = "answers.sqlite"
daily = 1000000000
[audit]
directory = "audit"
key = "audit.key"
"""


@dataclass(frozen=True)
class Address:
    """Where a process listens. tls: whether it asks for a certificate."""

    address: str
    tls: bool


@dataclass(frozen=True)
class Served:
    """What clients of the servers have to know; goes to other processes. pki: where certificates are."""

    folder: Path
    addresses: Mapping[str, Address]
    pids: Mapping[str, int] = field(default_factory=dict)

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def credentials(self, identity: str) -> tuple[bytes, bytes, bytes]:
        """(authority, private key, certificate), PEM."""
        files = (self.pki / "ca.pem", self.pki / f"{identity}.key", self.pki / f"{identity}.pem")
        return files[0].read_bytes(), files[1].read_bytes(), files[2].read_bytes()


def heads() -> dict[str, Head]:
    """The models, by name; the same every time. `hidden` is evaluated by workers, `small` on the event loop."""
    return {"small": _head((8, 3), Square()), "hidden": _head((600, 4, 2), Square())}


def shared_heads() -> dict[str, Head]:
    """Those of the parties; "squares" has its weights shared between them."""
    return {"small": _head((8, 3), Square()), "relu": _head((8, 5, 3), ReLU()), "squares": _head((8, 5, 3), Square())}


def _head(widths: tuple[int, ...], activation: Layer) -> Head:
    rng = np.random.default_rng(0)
    layers: list[Layer] = []
    for width, units in pairwise(widths):
        layers += [Linear(rng.normal(size=(units, width)) / np.sqrt(width), rng.normal(size=units) / 10), activation]
    return Head(layers[:-1], labels=[f"class {k}" for k in range(widths[-1])], input_bound=1.0, input_norm=1.0)


def lay_out(folder: Path) -> None:
    """Models, certificates and configuration."""
    for name in ("models", "party-0", "party-1", "audit"):
        (folder / name).mkdir()
    for name, head in heads().items():
        head.save(folder / "models" / f"{name}.head")
    directories = [folder / "party-0", folder / "party-1"]
    for name, head in shared_heads().items():
        if name == "squares":
            share_model(head, directories, name)
            continue
        for directory in directories:
            head.save(directory / f"{name}.head")
    pki = folder / "pki"
    certs.make(pki, [HOST], "nobody", 2)
    ca = authority.read_authority(pki)
    for identity in IDENTITIES:
        key = authority.new_key()
        authority.write_new(pki / f"{identity}.key", authority.key_pem(key))
        signed = ca.sign("client", identity, [], key.public_key(), 2)
        authority.write_new(pki / f"{identity}.pem", authority.certificate_pem(signed))
    issuer = authority.new_key()
    authority.write_new(folder / "issuer.key", authority.key_pem(issuer))
    (folder / "issuer.pem").write_bytes(public_pem(issuer))
    (folder / "policy.toml").write_text(_POLICY)
    code = base64.b32encode(secrets.token_bytes(20)).decode()
    (folder / "otp.toml").touch(mode=0o600)
    (folder / "otp.toml").write_text(f'"cn:{STOLEN}" = "{code}"\n')
    (folder / "server.toml").write_text(_CONFIGURATION.format(issuer=ISSUER, audience=AUDIENCE))


def public_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
