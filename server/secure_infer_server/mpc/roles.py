"""Who a caller is: the role that its certificate names.

A certificate names a role as a URI among its alternative names: `urn:secure-infer:party:0`, `urn:secure-infer:party:1`,
`urn:secure-infer:dealer` or `urn:secure-infer:client`. One that names none is a client's, the role with the fewest
rights; one that names several, or an unknown one, has no role at all. Roles are kept apart because their secrecy is: a
party that may also ask as a client, or another party's correlations, learns what it must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from secure_infer.errors import PrivacyRefused, SettingsError

PREFIX = "urn:secure-infer:"
ANONYMOUS = "anonymous"


class Role(StrEnum):
    """A role, as the URI that certificates name it by."""

    PARTY_0 = PREFIX + "party:0"
    PARTY_1 = PREFIX + "party:1"
    DEALER = PREFIX + "dealer"
    CLIENT = PREFIX + "client"

    @property
    def short(self) -> str:
        """ "party:0", as messages say it."""
        return self.removeprefix(PREFIX)


def of_party(party: int) -> Role:
    """The role of party 0 or 1."""
    return (Role.PARTY_0, Role.PARTY_1)[party]


def of_uris(uris: Iterable[str]) -> Role | None:
    """The role that a certificate with those URIs has; None: several, or an unknown one."""
    named = {uri for uri in uris if uri.lower().startswith(PREFIX)}
    if not named:
        return Role.CLIENT
    if len(named) > 1:
        return None
    (uri,) = named
    return Role(uri) if uri in set(Role) else None


def of_peer_certificate(certificate: Mapping[str, Any] | None) -> Role | None:
    """The role in `SSLSocket.getpeercert()`; None without a certificate that was verified."""
    if not certificate:
        return None
    return of_uris(value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")


def of_caller(context: grpc.ServicerContext) -> Role | None:
    """The role of a gRPC caller; a caller over TLS without a certificate is a client. None: no role at all.

    Raises nothing; insecure transport has no roles and is told by `is_insecure`.
    """
    pem = _pem(context)
    return Role.CLIENT if pem is None else _read(pem)[0]


def require_own(pem: bytes, file: str, expected: Role) -> None:
    """Raise SettingsError unless this process's own certificate (PEM, checked before) names the role that it has to have."""
    found = _read(pem)[0]
    if found is not expected:
        got = "no role, an unknown one, or several" if found is None else found.short
        raise SettingsError(f"--tls-cert: expected a certificate with the role {expected.short}, {file} has {got}")


def is_insecure(context: grpc.ServicerContext) -> bool:
    """True for calls without TLS, which settings allow on loopback alone."""
    return bool(context.auth_context().get("transport_security_type") == [b"insecure"])


def require(context: grpc.ServicerContext, *allowed: Role) -> str:
    """Who asks, as `identity` says it; raises PrivacyRefused unless the caller has one of those roles.

    On insecure loopback everybody passes. gRPC makes its answer anew every time it is asked, hence once for both.
    """
    facts = context.auth_context()
    if facts.get("transport_security_type") == [b"insecure"]:
        return ANONYMOUS
    certificate = facts.get("x509_pem_cert")
    found, who = _read(bytes(certificate[0])) if certificate else (Role.CLIENT, ANONYMOUS)
    if found not in allowed:
        wanted = " or ".join(role.short for role in allowed)
        got = "no role, an unknown one, or several" if found is None else found.short
        raise PrivacyRefused(f"certificate: this call is for the role {wanted}, the caller's certificate has {got}")
    return who


def identity(context: grpc.ServicerContext) -> str:
    """Who asks, the same at both parties and through renewals: the certificate's common name, or its SHA-256 fingerprint
    when it has none; "anonymous" for callers without a certificate."""
    pem = _pem(context)
    return ANONYMOUS if pem is None else _read(pem)[1]


def _pem(context: grpc.ServicerContext) -> bytes | None:
    found = context.auth_context().get("x509_pem_cert")
    return bytes(found[0]) if found else None


@lru_cache(maxsize=256)
def _read(pem: bytes) -> tuple[Role | None, str]:
    """Role and identity of a certificate that TLS has verified."""
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    who = f"cn:{names[0].value!s}" if names else f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return Role.CLIENT, who
    return of_uris(extension.value.get_values_for_type(x509.UniformResourceIdentifier)), who
