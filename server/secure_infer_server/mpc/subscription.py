"""A party's stream from its dealer: kept open in the background, opened again whenever it ends.

A dealer is only one whose certificate says so: any certificate of the authority would pass for gRPC, and whoever passes for
the dealer knows every mask. gRPC does not show the certificate of a server, so it is fetched first (a TLS handshake, fully
verified), its role is checked, and it is then the only root that the stream trusts.
"""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Protocol

import grpc

from secure_infer import address as addresses
from secure_infer import pem
from secure_infer.errors import PrivacyRefused, SecureInferError
from secure_infer.v1 import mpc_pb2, mpc_pb2_grpc
from secure_infer_server.callers.watched import Watched
from secure_infer_server.mpc import recipes, roles
from secure_infer_server.mpc.endpoint import KEEPALIVE, Identity

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
_STEADY_SECONDS = 5.0  # a stream that lived for so long was a good one: the next attempt is soon
_CONNECT_SECONDS = 5.0

Wants = queue.SimpleQueue[mpc_pb2.DealRequest | None]


class Receiver(Protocol):
    """What takes what a dealer hands out. Raises SecureInferError for what cannot be right: the stream is begun anew."""

    def heard(self) -> None:
        """The dealer answered; an epoch begins when the other party is there, too."""

    def begin(self, epoch: bytes, wants: Wants) -> None:
        """An epoch begins; wants: where requests of it go."""

    def receive(self, message: mpc_pb2.DealResponse) -> None:
        """Masks or a bundle."""

    def lost(self) -> None:
        """The stream ended."""


class Subscription:
    """A party's stream to the dealer at HOST:PORT; identity None: without TLS."""

    def __init__(self, party: int, address: str, identity: Identity | None, receiver: Receiver) -> None:
        """Raises SettingsError for a wrong address, or files that do not fit."""
        self._host = addresses.parse(address, "--dealer")[0].strip("[]")
        self._port = addresses.parse(address, "--dealer")[1]
        self._party, self._address, self._receiver = party, address, receiver
        self._files = None if identity is None else _watched(identity, roles.of_party(party))
        self._closed = threading.Event()
        self._call: grpc.Call | None = None
        self._begun = False  # whether the dealer has taken the stream
        self._complained = True  # whether it is news that it has
        self._thread = threading.Thread(target=self._work, name="dealer-stream", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        call = self._call
        if call is not None:
            call.cancel()
        if self._thread.ident is not None:
            self._thread.join(_CONNECT_SECONDS)

    def _work(self) -> None:
        pause = FIRST_PAUSE
        said: set[str] = set()
        while not self._closed.is_set():
            started = monotonic()
            try:
                self._stream()
                reason = "the dealer began anew"
            except grpc.RpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            except SecureInferError as error:
                reason = error.message
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
            except Exception as error:  # whatever it was: a store without its dealer never fills again
                log.exception("while listening to the dealer")
                reason = type(error).__name__
            self._receiver.lost()
            if self._begun and monotonic() - started > _STEADY_SECONDS:
                pause = FIRST_PAUSE
                said.clear()
            what = "ended the stream" if self._begun else "does not answer"
            if f"{what} {reason}" not in said and not self._closed.is_set():
                log.warning("the dealer at %s %s (%s); trying again", self._address, what, reason)
                said.add(f"{what} {reason}")
                self._complained = True
            self._begun = False
            self._closed.wait(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _stream(self) -> None:
        wants: Wants = queue.SimpleQueue()
        with self._channel() as channel:
            call = mpc_pb2_grpc.DealerServiceStub(channel).Deal(self._requests(wants), wait_for_ready=False)
            self._call = call
            try:
                if self._closed.is_set():
                    return
                if recipes.HEARD in {(key, value) for key, value in call.initial_metadata()}:
                    self._begun = True
                    self._receiver.heard()
                    if self._complained:
                        log.info("connected to the dealer at %s", self._address)
                        self._complained = False
                for message in call:
                    if message.HasField("epoch"):
                        self._receiver.begin(message.epoch.id, wants)
                    else:
                        self._receiver.receive(message)
            finally:
                wants.put(None)
                call.cancel()

    def _requests(self, wants: Wants) -> Iterator[mpc_pb2.DealRequest]:
        yield mpc_pb2.DealRequest(hello=mpc_pb2.DealHello(party=self._party))
        yield from iter(wants.get, None)

    def _channel(self) -> grpc.Channel:
        options = [("grpc.max_receive_message_length", recipes.MAX_MESSAGE), *KEEPALIVE]
        if addresses.is_loopback(self._host):
            options.append(("grpc.enable_http_proxy", 0))
        if self._files is None:
            return grpc.insecure_channel(self._address, options)
        self._files.refresh()  # renewed since: this stream has the new certificate
        context, *pair = self._files.value
        credentials = grpc.ssl_channel_credentials(self._dealer_certificate(context), *pair)
        return grpc.secure_channel(self._address, credentials, options)

    def _dealer_certificate(self, context: ssl.SSLContext) -> bytes:
        """The verified certificate of the dealer, PEM. Raises PrivacyRefused when its role is another, OSError."""
        with (
            socket.create_connection((self._host, self._port), timeout=_CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=self._host) as tls,
        ):
            role = roles.of_peer_certificate(tls.getpeercert())
            data = tls.getpeercert(binary_form=True)
        if role is not roles.Role.DEALER or data is None:
            found = "no role, an unknown one, or several" if role is None else role.short
            raise PrivacyRefused(f"certificate: expected a dealer's at {self._address}, it has the role {found}")
        return ssl.DER_cert_to_PEM_cert(data).encode()


def _watched(identity: Identity, role: roles.Role) -> Watched[tuple[ssl.SSLContext, bytes, bytes]]:
    """What knows the authority, and PEM of this party's key and certificate; to be read again when the files change."""

    def read() -> tuple[ssl.SSLContext, bytes, bytes]:
        pair = pem.key_pair("--tls-key", identity.key, "--tls-cert", identity.certificate)
        roles.require_own(pair[1], str(identity.certificate), role)
        context = ssl.create_default_context(cadata=pem.certificates("--client-ca", identity.authority).decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(identity.certificate, identity.key)
        return context, *pair

    files = [identity.certificate, identity.key, identity.authority]
    return Watched("certificates of the way to the dealer", read, lambda: files)
