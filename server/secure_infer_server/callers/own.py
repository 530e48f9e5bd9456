"""The certificate that a process identifies itself with: what it may be used for, and until when."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_infer import pem
from secure_infer.errors import SettingsError

Extension = TypeVar("Extension", bound=x509.ExtensionType)

SOON_DAYS = 14.0
"""A certificate that ends within so many days is to be renewed."""


def days_left(certificate: x509.Certificate) -> float:
    """Days until it ends, negative afterwards."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left / datetime.timedelta(days=1)


def require_for_servers(certificate: x509.Certificate, path: Path) -> None:
    """Raise SettingsError for one, of that file, that is not for servers: every client would refuse it."""
    usages = _usages(certificate)
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        raise SettingsError(
            f"--tls-cert: {path} is not for servers, and clients would refuse it; make one with `secure-infer certs issue`"
        )


# Warnings. Of a file that holds no certificates they say nothing: it is an error elsewhere.


def for_servers_alone(path: Path) -> Iterator[str]:
    """Of a chain whose first certificate is not for clients as well."""
    for certificate in _held(path)[:1]:
        usages = _usages(certificate)
        if usages is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
            yield f"{path} is not for clients, and this process is one of the other party or the dealer: they will refuse it"


def no_authority(path: Path) -> Iterator[str]:
    """Of a file whose certificates are not a CA's."""
    for certificate in _held(path):
        limits = _extension(certificate, x509.BasicConstraints)
        if limits is None or not limits.ca:
            yield f"{path} holds {certificate.subject.rfc4514_string()}, which is no CA: it vouches for nobody"


def foreign(path: Path, authority: Path) -> Iterator[str]:
    """Of a chain that no CA of the other file signed."""
    chain, trusted = _held(path), _held(authority)
    if chain and trusted and not any(pem.is_signed_by(chain[-1], each) for each in trusted):
        yield f"{path} is of another CA than {authority}: whoever trusts that one alone will refuse this process"


def ending(path: Path) -> Iterator[str]:
    """Of a chain whose first certificate ends soon."""
    for certificate in _held(path)[:1]:
        if days_left(certificate) < SOON_DAYS:
            yield f"{path} ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it; no restart is needed"


def _held(path: Path) -> list[x509.Certificate]:
    try:
        return pem.chain("certificates", path)
    except SettingsError:
        return []


def _usages(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    """None: for anything, or not to be told."""
    return _extension(certificate, x509.ExtendedKeyUsage)


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """None where there is none of that kind, or one that cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
