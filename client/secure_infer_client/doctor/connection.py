"""The way to a server: its name, its port, TLS, its certificate, the model, and one query."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
from cryptography import x509

from secure_infer import address, pem
from secure_infer.errors import InvalidInput, SecureInferError
from secure_infer_client.client import Client
from secure_infer_client.doctor.finding import Finding, note, ok, problem
from secure_infer_client.transport import uses_tls

SECONDS = 5.0
SOON = 30  # days before a certificate ends that somebody should know
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


@dataclass(frozen=True)
class Way:
    """What a client would be given for the connection. token: the bearer token itself; it is never shown."""

    targets: tuple[str, ...]
    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None
    token: str | None = None


def looks(way: Way, make: Callable[[], Client] | None, *, query: bool) -> Iterator[Finding]:
    """make: the client that asks for the model, None where no model was named. query: send one row as well."""
    if way.certificate_chain is not None:
        yield _own_certificate(way.certificate_chain)
    if way.token is not None:
        yield _token(way.token)
    proxies = [name for name in _PROXIES if os.environ.get(name)]
    if proxies:
        yield note("proxy", f"{', '.join(proxies)} set: gRPC goes through it, the looks below go straight")
    reached = True
    for target in way.targets:
        for finding in _target(target, way):
            reached = reached and not finding.advice
            yield finding
    if make is not None and (reached or proxies):
        yield from _asked(make, query=query)


def _target(target: str, way: Way) -> Iterator[Finding]:
    try:
        host, port = address.parse(target, "target")
    except SecureInferError as error:
        yield problem("address", error.message, "give HOST:PORT")
        return
    try:
        addresses = sorted(
            {found[4][0] for found in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)}
        )
    except OSError:
        yield problem("name", f"{host} has no address here", "check the spelling, DNS, and whether a VPN is on")
        return
    started = perf_counter()
    try:
        socket.create_connection((host.strip("[]"), port), timeout=SECONDS).close()
    except OSError as error:
        reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or "refused"
        advice = "is the server running there, and does a firewall let you through?"
        yield problem("port", f"{target} ({', '.join(map(str, addresses[:3]))}): {reason}", advice)
        return
    yield ok("port", f"{target} answers, {1e3 * (perf_counter() - started):.1f} ms")
    if uses_tls(target, way.root_certificates, way.private_key):
        yield from _tls(host.strip("[]"), port, way)
    else:
        yield note("tls", f"{target}: none, as it is on this machine and no certificates were given")


def _tls(host: str, port: int, way: Way) -> Iterator[Finding]:
    try:
        context = _context(way)
    except SecureInferError as error:
        yield problem("tls", error.message, "mend that file first")
        return
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as link,
            context.wrap_socket(link, server_hostname=host) as secure,
        ):
            shown = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
            # A server that wants a certificate says so only now, in TLS 1.3, or just ends the connection.
            secure.settimeout(0.3)
            with suppress(TimeoutError):
                if not secure.recv(1):
                    raise ssl.SSLError(0, "the server ended the connection, as without a certificate that it accepts")
            yield ok("tls", f"{secure.version()}, {(secure.cipher() or ('?',))[0]}")
            yield _certificate(shown)
    except ssl.SSLCertVerificationError as error:
        yield problem("tls", f"its certificate is not accepted: {error.verify_message}", _mending(host, port, error))
    except ssl.SSLError as error:
        yield problem("tls", f"{error.reason or 'refused'}", _reason(error, way))
    except OSError as error:
        yield problem(
            "tls", f"the handshake broke off ({error.strerror or 'no answer'})", "does the server use TLS there?"
        )


def _context(way: Way) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if way.root_certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_verify_locations(cadata=pem.certificates("--root-certificates", way.root_certificates).decode())
    if way.private_key is not None and way.certificate_chain is not None:
        pem.key_pair("--private-key", way.private_key, "--certificate-chain", way.certificate_chain)
        context.load_cert_chain(way.certificate_chain, way.private_key)
    return context


def _mending(host: str, port: int, error: ssl.SSLCertVerificationError) -> str:
    """What to do about a certificate that does not verify, by what is in it."""
    try:
        certificate = _unverified(host, port)
    except (OSError, ValueError):
        return "give --root-certificates: the CA that signed it"
    now = datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        return f"it begins on {certificate.not_valid_before_utc:%Y-%m-%d}: is this machine's clock right?"
    if now > certificate.not_valid_after_utc:
        return f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}: its operator has to renew it"
    if "mismatch" in error.verify_message or "not valid for" in error.verify_message:
        return f"it is for {', '.join(_names(certificate)) or 'no name'}: use that name"
    return f"it was signed by {certificate.issuer.rfc4514_string()}: give that CA with --root-certificates"


def _unverified(host: str, port: int) -> x509.Certificate:
    """The certificate shown there, whoever signed it: only to tell what is wrong with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=SECONDS) as link,
        context.wrap_socket(link, server_hostname=host) as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")


def _reason(error: ssl.SSLError, way: Way) -> str:
    text = str(error).upper()
    if "CERTIFICATE" in text:
        own = "another one" if way.certificate_chain is not None else "one of your own"
        return f"the server wants {own}: --private-key and --certificate-chain, from a CA that it accepts"
    if "WRONG_VERSION" in text or "RECORD" in text:
        return "no TLS is spoken there: is it the right port? Without TLS a server serves its own machine alone"
    return "TLS 1.3 is needed on both sides"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _certificate(certificate: x509.Certificate, look: str = "certificate") -> Finding:
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    who = ", ".join(_names(certificate)) or certificate.subject.rfc4514_string()
    found = f"{who}, until {certificate.not_valid_after_utc:%Y-%m-%d} ({left} days)"
    if left < 0:
        return problem(look, found, "it has ended: have it renewed")
    if left < SOON:
        return note(look, f"{found}: have it renewed soon")
    return ok(look, found)


def _own_certificate(chain: Path) -> Finding:
    try:
        data = pem.certificates("--certificate-chain", chain)
    except SecureInferError as error:
        return problem("own", error.message, "give the certificate that your CA issued, in PEM")
    return _certificate(x509.load_pem_x509_certificates(data)[0], "own")


def _token(token: str) -> Finding:
    """Dates of a JWT, which its server judges by its own clock; the signature is the server's to check."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends = claims.get("exp")
    except (IndexError, ValueError, AttributeError):
        return note("token", "not a JWT; the server judges it")
    if not isinstance(ends, int | float):
        return note("token", "a JWT without an end; servers here want one")
    left = ends - datetime.now(UTC).timestamp()
    if left < 0:
        return problem("token", f"it ended {_ago(-left)} ago", "get a new one from your identity provider")
    return ok("token", f"a JWT for another {_ago(left)}")


def _ago(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds / 60:.0f} min"


def _asked(make: Callable[[], Client], *, query: bool) -> Iterator[Finding]:
    try:
        with make() as client:
            started = perf_counter()
            spec = client.spec
            took = 1e3 * (perf_counter() - started)
            what = f"{spec.name}, {spec.contract.features} -> {spec.outputs}, {spec.digest[:12]}…, {took:.0f} ms"
            yield ok("model", what)
            if not query:
                return
            row = np.zeros((1, spec.contract.features))
            times = []
            for _ in range(3):
                client.decide(row)
                times.append(client.last_call.stats.total_ms)
            stats = client.last_call.stats
            yield ok("query", f"{stats.plan}: {times[0]:.0f} ms the first, {min(times[1:]):.1f} ms the next")
    except SecureInferError as error:
        yield problem("model", f"{error.message} [{error.reason}]", _advice(error))


def _advice(error: SecureInferError) -> str:
    return {
        "UNKNOWN_MODEL": "ask for one of those, or its operator to serve it",
        "PERMISSION_DENIED": "ask its operator for a rule that lets you",
        "UNAUTHENTICATED": "give --private-key and --certificate-chain, or --token-file",
    }.get(error.reason, "see the message" if not isinstance(error, InvalidInput) else "see the model's contract")
