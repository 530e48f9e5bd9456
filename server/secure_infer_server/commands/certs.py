"""`secure-infer certs dev`: a development CA with certificates for servers, parties, a dealer and clients. Not for production."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_infer.errors import SettingsError
from secure_infer_server.mpc.roles import Role

DAYS = 30
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
_KINDS: dict[str, tuple[Role | None, list[x509.ObjectIdentifier]]] = {
    "server": (None, [_SERVER]),
    "client": (Role.CLIENT, [_CLIENT]),
    "party0": (Role.PARTY_0, [_SERVER, _CLIENT]),  # a server to clients and its peer, a client of the dealer
    "party1": (Role.PARTY_1, [_SERVER, _CLIENT]),
    "dealer": (Role.DEALER, [_SERVER]),
}


def run(arguments: list[str]) -> int:
    """Write NAME.pem and NAME.key for ca, server, client, party0, party1 and dealer; prints their paths."""
    parser = argparse.ArgumentParser("secure-infer certs", description=__doc__)
    parser.add_argument("kind", choices=["dev"], help="dev: everything at once, for trying out TLS")
    parser.add_argument("--out", type=Path, default=Path("certs"), metavar="DIR", help="where to write (./certs)")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="further names or addresses of the servers"
    )
    parser.add_argument("--client", default="dev-client", metavar="NAME", help="the client certificate's common name")
    parser.add_argument("--days", type=int, default=DAYS, help=f"validity ({DAYS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 1 <= options.days <= 825:
        raise SettingsError(f"--days: expected 1 to 825, got {options.days}")
    paths = make(options.out, ["localhost", "127.0.0.1", "::1", *options.host], options.client, options.days)
    if options.json:
        sys.stdout.write(json.dumps({name: str(path) for name, path in paths.items()}) + "\n")
    else:
        sys.stdout.write("".join(f"{path}\n" for path in paths.values()))
        sys.stdout.write(
            f"server: --tls-cert {paths['server.pem']} --tls-key {paths['server.key']} --client-ca {paths['ca.pem']}\n"
            "party and dealer: the same with party0, party1 or dealer in place of server\n"
            f"client: --root-certificates {paths['ca.pem']} --private-key {paths['client.key']} "
            f"--certificate-chain {paths['client.pem']}\n"
        )
    return 0


def make(directory: Path, hosts: list[str], client: str, days: int) -> dict[str, Path]:
    """Make the files in `directory`; returns their paths by name. Private keys are readable by their owner only."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out: {directory} cannot be made ({error.strerror})") from error
    present = [name for name in ("ca.key", *(f"{kind}.key" for kind in _KINDS)) if (directory / name).exists()]
    if present:
        raise SettingsError(f"--out: {directory} already holds {', '.join(present)}; nothing was overwritten")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secure-infer development CA")])
    ca = _sign(ca_name, ca_key, ca_name, ca_key, days, authority=True)
    files = {"ca.pem": _pem(ca), "ca.key": _key(ca_key)}
    for name, (role, usages) in _KINDS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        common = {"server": hosts[0], "client": client}.get(name, name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        names = [_name(host) for host in hosts] if _SERVER in usages else []
        if role is not None:
            names.append(x509.UniformResourceIdentifier(role))
        certificate = _sign(subject, key, ca_name, ca_key, days, usages=usages, names=names)
        files |= {f"{name}.pem": _pem(certificate), f"{name}.key": _key(key)}
    paths = {name: directory / name for name in files}
    for name, data in files.items():
        mode = 0o600 if name.endswith(".key") else 0o644
        with os.fdopen(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
    return paths


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    authority: bool = False,
    usages: Sequence[x509.ObjectIdentifier] = (),
    names: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
