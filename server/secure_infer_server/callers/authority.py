"""Certificates: a CA, what it signs, and what it signs again before it expires.

Keys are P-256. Ed25519 would be refused in the handshake: gRPC's BoringSSL offers it for neither side's certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_infer import pem
from secure_infer.errors import SettingsError
from secure_infer_server.mpc.roles import Role

_BEHIND = datetime.timedelta(minutes=5)  # valid from so long ago, for clocks that run behind

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
KINDS: Mapping[str, tuple[Role | None, list[x509.ObjectIdentifier]]] = {
    "server": (None, [_SERVER]),
    "client": (Role.CLIENT, [_CLIENT]),
    "party0": (Role.PARTY_0, [_SERVER, _CLIENT]),  # a server to clients and its peer, a client of the dealer
    "party1": (Role.PARTY_1, [_SERVER, _CLIENT]),
    "dealer": (Role.DEALER, [_SERVER]),
}
"""What a certificate can be for: the role it names, and its extended key usages."""


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def sign(self, kind: str, name: str, hosts: Sequence[str], public: PublicKey, days: int) -> x509.Certificate:
        """A certificate for one of `KINDS`, valid for `days` from now; `hosts` are names and addresses of servers."""
        role, usages = KINDS[kind]
        names = [_host(host) for host in hosts] if _SERVER in usages else []
        if role is not None:
            names.append(x509.UniformResourceIdentifier(role))
        return self._signed(_common(name), public, datetime.timedelta(days=days), usages, names)

    def renew(self, old: x509.Certificate, public: PublicKey, days: int | None) -> x509.Certificate:
        """The same names, role and usages, from now on; days None: for as long as the old one was valid."""
        try:
            usages = list(old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
            names = list(old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            raise SettingsError(
                "renewal: a certificate of this CA names no usage or no role and host; issue it anew"
            ) from None
        span = old.not_valid_after_utc - old.not_valid_before_utc - _BEHIND
        validity = span if days is None else datetime.timedelta(days=days)
        return self._signed(old.subject, public, validity, usages, names)

    def signed(self, certificate: x509.Certificate) -> bool:
        """Whether this CA signed it."""
        return pem.is_signed_by(certificate, self.certificate)

    def _signed(
        self,
        subject: x509.Name,
        public: PublicKey,
        validity: datetime.timedelta,
        usages: Sequence[x509.ObjectIdentifier],
        names: Sequence[x509.GeneralName],
    ) -> x509.Certificate:
        until = datetime.datetime.now(datetime.UTC) + validity
        if until > self.certificate.not_valid_after_utc:
            last = self.certificate.not_valid_after_utc.date()
            raise SettingsError(
                f"validity: until {until.date()}, but the CA's own ends on {last}; make a new CA, or ask for less"
            )
        builder = (
            _builder(subject, self.certificate.subject, public, self.key, validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def new_authority(name: str, days: int) -> Authority:
    """A CA with a fresh key, which signs end certificates only."""
    key = new_key()
    subject = _common(name)
    builder = (
        _builder(subject, subject, key.public_key(), key, datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def read_authority(directory: Path) -> Authority:
    """The CA of `ca.pem` and `ca.key`; raises SettingsError when they are not a P-256 CA's."""
    path = directory / "ca.key"
    certificate, key = read_certificates(directory / "ca.pem")[0], read_key(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise SettingsError(f"{path} can be used by others than its owner; make it 0600")
    if key.public_key() != certificate.public_key():
        raise SettingsError(f"{directory}: ca.key does not belong to ca.pem")
    return Authority(certificate, key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(_bytes(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{path}: expected an unencrypted EC private key in PEM")
    return key


def read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_bytes(path))
    except ValueError:
        raise SettingsError(f"{path}: expected a certificate in PEM") from None


def holds_certificates(path: Path) -> bool:
    """Whether the file is PEM with a certificate in it, and not keys alone."""
    return b"-----BEGIN CERTIFICATE-----" in _bytes(path)


def requested_key(path: Path) -> PublicKey:
    """The public key of a certificate request that is signed with it. Nothing else of a request counts: it may ask for any
    name and role. Raises SettingsError for keys that gRPC's TLS does not take, and for what is no request."""
    try:
        request = x509.load_pem_x509_csr(_bytes(path))
        sound, key = request.is_signature_valid, request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"--csr: {path}: expected a certificate request in PEM") from None
    if not sound:
        raise SettingsError(f"--csr: {path}: its signature does not hold")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    raise SettingsError(f"--csr: {path}: expected a P-256, P-384 or RSA key of 2048 bits; gRPC's TLS takes no Ed25519")


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, safe on disk on return; keys for their owner only. SettingsError if it is there."""
    mode = 0o600 if path.name.endswith((".key", ".key.new")) else 0o644
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SettingsError(f"{path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror})") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    signer: ec.EllipticCurvePrivateKey,
    validity: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEHIND)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(**given: bool) -> x509.KeyUsage:
    names = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from None
