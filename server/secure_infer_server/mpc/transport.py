"""Bytes between two parties over one socket, TLS 1.3 or plain: deadlines on everything, both directions at once.

Sockets never block. What is to be sent is queued and leaves as the socket takes it, also while something is received:
two parties that send each other more than the kernel buffers hold do not wait for each other forever.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from secure_infer import pem
from secure_infer.errors import PeerFailure, SettingsError
from secure_infer_server.callers.watched import Watched
from secure_infer_server.mpc import roles
from secure_infer_server.mpc.roles import Role
from secure_infer_server.tls import Tls

_CHUNK = 256 << 10
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_IN, _OUT = select.POLLIN, select.POLLOUT
_GONE = getattr(select, "POLLRDHUP", select.POLLHUP)
# A peer whose machine vanished is noticed after about 25 s, at once when something is sent to it and stays unanswered.
_OPTIONS = {"SO_KEEPALIVE": 1, "TCP_NODELAY": 1, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_USER_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Security:
    """TLS of one side, and the role it expects of the other."""

    context: ssl.SSLContext
    expected: Role


def security(tls: Tls, party: int) -> Security:
    """Mutual TLS 1.3 for `party`. The peer is known by its role, not its host name, under the authority of --client-ca.

    Raises SettingsError for files that are missing or do not belong together.
    """
    if tls.client_ca is None:
        raise SettingsError("--client-ca: parties know each other by certificates; give the authority that signs them")
    _, chain = pem.key_pair("--tls-key", tls.key, "--tls-cert", tls.certificate)
    roles.require_own(chain, str(tls.certificate), roles.of_party(party))
    pem.certificates("--client-ca", tls.client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if party == 0 else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if party == 0:
        context.num_tickets = 0  # no resumption, and nothing to read on an idle lane
    context.load_verify_locations(tls.client_ca)
    context.load_cert_chain(tls.certificate, tls.key)
    return Security(context, roles.of_party(1 - party))


def watched(tls: Tls, party: int) -> Watched[Security]:
    """The same, to be read again when the files change: what does not fit together is logged, and the earlier stays."""
    files = [file for file in (tls.certificate, tls.key, tls.client_ca) if file is not None]
    return Watched("certificates of the link to the other party", lambda: security(tls, party), lambda: files)


class Transport:
    """One socket. Every method but `kill` is for the one thread that uses it; after PeerFailure it is of no more use."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._tls: ssl.SSLSocket | None = None
        connected.setblocking(False)
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):
                level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
                connected.setsockopt(level, getattr(socket, name), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        self._out: deque[memoryview] = deque()
        self._events = _IN
        self._poll = select.poll()
        self._poll.register(connected, _IN)

    def secure(self, security: Security, deadline: float) -> None:
        """TLS handshake and check of the peer's role."""
        context = security.context
        server = context.protocol == ssl.PROTOCOL_TLS_SERVER
        try:
            self._tls = context.wrap_socket(self._socket, server_side=server, do_handshake_on_connect=False)
            self._socket = self._tls
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._wait(_IN, deadline)
                except ssl.SSLWantWriteError:
                    self._wait(_OUT, deadline)
        except (OSError, ValueError) as error:
            raise _lost(error) from None
        found = roles.of_peer_certificate(self._tls.getpeercert())
        if found is not security.expected:
            got = "no role" if found is None else found.short
            raise PeerFailure(f"peer: expected a certificate of {security.expected.short}, got one of {got}")

    def send(self, data: bytes, more: memoryview | None = None) -> None:
        """Queue data, then `more`, which must not change until it is flushed; sends what the socket takes at once."""
        self._out.append(memoryview(data))
        if more:
            self._out.append(more)
        try:
            self._push()
        except OSError as error:
            raise _lost(error) from None

    def receive(self, into: memoryview, least: int, deadline: float) -> int:
        """Bytes received, at least `least`, at most all of `into`; sends what is queued meanwhile."""
        got = 0
        try:
            while got < least:
                if self._tls is None or not self._tls.pending():
                    ready = self._wait(_IN | _OUT if self._out else _IN, deadline)
                    if ready & _OUT and self._out:
                        self._push()
                    if not ready & ~_OUT:
                        continue
                try:
                    count = self._socket.recv_into(into[got:])
                except _AGAIN:
                    continue
                if not count:
                    raise PeerFailure("peer: the other party closed the connection")
                got += count
        except OSError as error:
            raise _lost(error) from None
        return got

    def flush(self, deadline: float) -> None:
        """Wait until everything queued is with the kernel."""
        try:
            while self._out:
                self._wait(_OUT, deadline)
                self._push()
        except OSError as error:
            raise _lost(error) from None

    @property
    def quiet(self) -> bool:
        """False when something is there to be read: on a lane that waits for nothing, the peer's end or worse."""
        if self._tls is not None and self._tls.pending():
            return False
        return not any(ready & ~_OUT for _, ready in self._poll.poll(0))

    @property
    def ended(self) -> bool:
        """True when the peer has closed its end, or the connection failed; for any thread."""
        poll = select.poll()  # its own: the user's may be waiting
        try:
            poll.register(self._socket, _GONE)
        except ValueError:  # closed here
            return True
        return bool(poll.poll(0))

    def kill(self) -> None:
        """End it from any thread: whoever uses it gets PeerFailure, and closes it."""
        with suppress(OSError):
            # Not SSLSocket's own, which would first make a plain socket of it under its user's hands.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self._out.clear()
        self._socket.close()

    def _push(self) -> None:
        """Send what the socket takes now, at most a few chunks: receiving has its turn, too."""
        for _ in range(8):
            if not self._out:
                return
            piece = self._out[0]
            try:
                sent = self._socket.send(piece[:_CHUNK])
            except _AGAIN:
                return
            if sent == len(piece):
                self._out.popleft()
            else:
                self._out[0] = piece[sent:]

    def _wait(self, events: int, deadline: float) -> int:
        """The events that are there, at least one. Raises PeerFailure at the deadline (time.monotonic; inf: never)."""
        if events != self._events:
            self._poll.modify(self._socket, events)
            self._events = events
        left = deadline - time.monotonic()
        ready = self._poll.poll(None if left == float("inf") else max(0.0, 1e3 * left))
        if not ready:
            raise PeerFailure("peer: no message from the other party in time")
        return ready[0][1]


def _lost(error: Exception) -> PeerFailure:
    what = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return PeerFailure(f"peer: the connection to the other party failed ({what})")
