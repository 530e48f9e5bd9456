"""The certificate that a process identifies itself with: what it may be used for, and until when."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_infer import pem
from secure_infer.errors import SettingsError

SOON_DAYS = 14.0
"""A certificate that ends within so many days is to be renewed."""


def days_left(certificate: x509.Certificate) -> float:
    """Days until it ends, negative afterwards."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left / datetime.timedelta(days=1)


def require_for_servers(path: Path) -> None:
    """Raise SettingsError for a chain whose first certificate is not for servers: every client would refuse it."""
    usages = _usages(pem.chain("--tls-cert", path)[0])
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        raise SettingsError(
            f"--tls-cert: {path} is not for servers, and clients would refuse it; make one with `secure-infer certs issue`"
        )


def _usages(certificate: x509.Certificate) -> Iterable[x509.ObjectIdentifier] | None:
    """None: for anything, or not to be told."""
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None


def for_servers_alone(path: Path) -> Iterator[str]:
    """A warning of a chain whose first certificate is not for clients as well; nothing of a file that holds none."""
    try:
        usages = _usages(pem.chain("--tls-cert", path)[0])
    except SettingsError:
        return
    if usages is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        yield f"{path} is not for clients, and this process is one of the other party or the dealer: they will refuse it"


def no_authority(path: Path) -> Iterator[str]:
    """A warning of a file whose certificates are not a CA's; nothing of a file that holds none."""
    try:
        found = pem.chain("--client-ca", path)
    except SettingsError:
        return
    for certificate in found:
        try:
            able = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
            able = False
        if not able:
            yield f"{path} holds {certificate.subject.rfc4514_string()}, which is no CA: it vouches for nobody"


def foreign(path: Path, authority: Path) -> Iterator[str]:
    """A warning of a chain that no CA of the other file signed; nothing of files that hold no certificates."""
    try:
        last = pem.chain("--tls-cert", path)[-1]
        trusted = pem.chain("--client-ca", authority)
    except SettingsError:
        return
    if not any(pem.is_signed_by(last, each) for each in trusted):
        yield f"{path} is of another CA than {authority}: whoever trusts that one alone will refuse this process"


def ending(path: Path) -> Iterator[str]:
    """A warning of a certificate that ends soon; nothing of a file that holds none."""
    try:
        found = pem.chain("--tls-cert", path)[0]
    except SettingsError:
        return
    if days_left(found) < SOON_DAYS:
        yield f"{path} ends at {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it; no restart is needed"
