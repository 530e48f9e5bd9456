"""Channels to a server: TLS or loopback, deadlines, limits, and statuses turned back into errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
from grpc import experimental
from grpc_status import rpc_status

from secure_infer import address, pem
from secure_infer.ckks.plan import CALL_BYTES, MAX_ANSWER_BYTES
from secure_infer.errors import CallFailed, ResourceExhausted, SecureInferError, ServerUnavailable, SettingsError
from secure_infer.wire import status as wire_status

Result = TypeVar("Result")
Pem = pem.Source | None

_LIMIT = max(CALL_BYTES, MAX_ANSWER_BYTES) + (64 << 10)


class Target(str):
    """ "HOST:PORT", and what this client was given to reach it: errors then say what may be missing.

    tls: whether the connection is one. certificate: whether the client has one of its own. party: whether one of two parties
    is expected there, rather than a server.
    """

    tls: bool
    certificate: bool
    party: bool

    def __new__(cls, target: str, *, tls: bool, certificate: bool, party: bool) -> Target:
        made = super().__new__(cls, target)
        made.tls, made.certificate, made.party = tls, certificate, party
        return made

    @property
    def advice(self) -> str:
        """What to look at when the connection fails, although somebody may listen."""
        if not self.tls:
            return "TLS was not used here; if the server demands it give --root-certificates (root_certificates=)"
        speaks = "TLS was used here: does the server use it, and is its certificate from the CA given"
        if not self.certificate:
            return (
                f"{speaks}? If it asks for a client certificate give --private-key and --certificate-chain "
                "(private_key=, certificate_chain=)"
            )
        return f"{speaks}, and this client's from one that the server accepts?"


def uses_tls(target: str, root_certificates: Pem, private_key: Pem) -> bool:
    """Loopback is plain as long as nothing is given for TLS."""
    local = address.is_loopback(address.parse(target, "target")[0])
    return not (root_certificates is None and private_key is None and local)


def targets(given: Sequence[str], root_certificates: Pem, private_key: Pem, *, party: bool) -> list[Target]:
    """The addresses with what there is to reach them."""
    return [
        Target(one, tls=uses_tls(one, root_certificates, private_key), certificate=private_key is not None, party=party)
        for one in given
    ]


def channel(
    target: str,
    *,
    root_certificates: Pem,
    private_key: Pem,
    certificate_chain: Pem,
    token: str | None,
    proxy: str | None = None,
) -> grpc.Channel:
    """A channel to "HOST:PORT". Without certificates, loopback is plain and anything else uses TLS with public roots: those
    of the file that SSL_CERT_FILE names, else of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, else gRPC's own.

    The certificate arguments are PEM files (paths) or PEM bytes; of roots, as many certificates as there are.
    proxy: see `proxy_options`. Nothing is retried here (see `retries`).
    """
    local = address.is_loopback(address.parse(target, "target")[0])
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", _LIMIT),
        ("grpc.max_send_message_length", _LIMIT),
        # A server that comes back is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Whoever waits for a stream of answers reads it, without a thread between.
        (experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    ]
    options += proxy_options(proxy, local=local)
    if (private_key is None) != (certificate_chain is None):
        raise SettingsError("private_key and certificate_chain go together; one is missing")
    if not uses_tls(target, root_certificates, private_key):
        if token is not None:
            raise SettingsError("token: it is only sent over TLS; give root_certificates")
        return grpc.insecure_channel(target, options)
    if root_certificates is None and os.environ.get("SSL_CERT_FILE"):
        root_certificates = os.environ["SSL_CERT_FILE"]
    root = None if root_certificates is None else pem.certificates("root_certificates", root_certificates)
    key, chain = None, None
    if private_key is not None and certificate_chain is not None:
        key, chain = pem.key_pair("private_key", private_key, "certificate_chain", certificate_chain)
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    if token is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(target, credentials, options)


def proxy_options(proxy: str | None, *, local: bool) -> list[tuple[str, Any]]:
    """How an HTTP proxy is used, by its CONNECT method; TLS goes through it to the server.

    proxy: "http://HOST:PORT", with USER:PASSWORD@ before the host for basic authentication; "" goes without one, whatever the
    environment says; None goes by grpc_proxy, https_proxy or http_proxy (in lower case, the first that is set) unless
    no_grpc_proxy or no_proxy names the server. Loopback goes without, unless a proxy is given here. Raises SettingsError.
    """
    if proxy == "" or (proxy is None and local):
        return [("grpc.enable_http_proxy", 0)]
    if proxy is None:
        return []
    parts = urlsplit(proxy)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SettingsError(
            "proxy: expected 'http://[USER:PASSWORD@]HOST:PORT'; other kinds of proxies are not supported"
        )
    return [("grpc.http_proxy", proxy)]


def call(target: str, timeout: float, function: Callable[[], Result]) -> Result:
    """`function()`, a gRPC call; its status becomes the catalogued error it carries, or the nearest one."""
    try:
        return function()
    except grpc.RpcError as error:
        raise translate(target, timeout, error) from None


def translate(target: str, timeout: float, error: grpc.RpcError) -> SecureInferError:
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    known = None if status is None else wire_status.from_status(status)
    if known is not None:
        return known
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        advice = target.advice if isinstance(target, Target) else "do both sides use TLS or neither?"
        refused = "Connection refused" in details
        return ServerUnavailable(
            f"no server answers at {target} ({details}); is it running?" + ("" if refused else f" {advice}")
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        expected = "party" if isinstance(target, Target) and target.party else "server"
        return CallFailed(f"{target} is no {expected} (a dealer, or another service?)")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServerUnavailable(
            f"{target} gave no answer within {timeout:g} s; raise the timeout, or ask its operator"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ResourceExhausted(f"{target}: {details}")
    if code is grpc.StatusCode.CANCELLED and not (isinstance(target, Target) and target.party):
        # Not by us, who would not be here: gRPC turns calls away like this where more come than a server can look at.
        return ResourceExhausted(f"{target} has more calls than it can look at; ask again shortly", again="shortly")
    return CallFailed(f"{target} answered {code.name}: {details}")
