"""PEM files of TLS, checked before gRPC sees them: it reports a wrong one as an unreachable server or a busy port."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from secure_infer.errors import SettingsError

Source = str | Path | bytes


def certificates(what: str, source: Source) -> bytes:
    """The PEM bytes of one or more certificates; raises SettingsError, naming `what`, for anything else."""
    data = _read(what, source)
    _chain(what, source, data)
    return data


def chain(what: str, source: Source) -> list[x509.Certificate]:
    """One or more certificates; of a chain, the first is its holder's. Raises SettingsError."""
    return _chain(what, source, _read(what, source))


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether that CA signed it itself."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def key_pair(what_key: str, key: Source, what_chain: str, chain: Source) -> tuple[bytes, bytes]:
    """PEM bytes of a private key and the certificate chain that belongs to it; raises SettingsError when it does not, and when
    the certificate is not valid now."""
    key_data, chain_data = _read(what_key, key), _read(what_chain, chain)
    leaf = _chain(what_chain, chain, chain_data)[0]
    try:
        certified = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{what_chain}: {_name(chain)} certifies a key of a kind that is not known") from None
    try:
        public = load_pem_private_key(key_data, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{what_key}: {_name(key)} is not an unencrypted private key in PEM") from None
    if public != certified:
        raise SettingsError(f"{what_key}: {_name(key)} does not belong to the certificate of {what_chain}")
    _require_valid(what_chain, chain, leaf)
    return key_data, chain_data


def _require_valid(what: str, source: Source, leaf: x509.Certificate) -> None:
    """Else whoever is on the other side would say no more than that the connection ended."""
    first, last, now = leaf.not_valid_before_utc, leaf.not_valid_after_utc, datetime.now(UTC)
    if not first <= now <= last:
        raise SettingsError(
            f"{what}: {_name(source)} is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now:%Y-%m-%d %H:%M} here; renew it, or set the clock"
        )


def _chain(what: str, source: Source, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        raise SettingsError(f"{what}: {_name(source)} holds no certificate in PEM") from None


def _read(what: str, source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise SettingsError(f"{what}: {source} cannot be read ({error.strerror})") from error


def _name(source: Source) -> str:
    return "the value given" if isinstance(source, bytes) else str(source)
