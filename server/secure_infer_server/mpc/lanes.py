"""The lanes between two parties: what both ends have in common; `leader` and `follower` are the two.

Party 0 listens and leads requests; party 1 connects, as often as it takes, and follows. A lane that fails is closed by
both, and party 1 makes it anew with fresh nonces. A new lane takes the place of the old one of its number, whatever
that was doing: the other party has given it up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from secure_infer.address import is_loopback, parse
from secure_infer.errors import SettingsError
from secure_infer_server.mpc.lane import Lane, Patience, fresh_hello, opened
from secure_infer_server.mpc.transport import Security, Transport, security
from secure_infer_server.settings import Tls

log = logging.getLogger(__name__)

LANES = 4
MAX_LANES = 64
_COMPLAINTS_APART = 1.0  # seconds


class Lanes:
    """What both ends have: checked settings, and the lanes that are up, by number."""

    def __init__(self, party: int, address: str, tls: Tls | None, lanes: int, patience: Patience) -> None:
        host, self._port = parse(address, "--peer")
        self._host = host.strip("[]")
        if tls is None and not is_loopback(host):
            raise SettingsError(f"--peer: without TLS parties talk on loopback only, got {host}")
        if not 1 <= lanes <= MAX_LANES:
            raise SettingsError(f"lanes: expected 1 to {MAX_LANES}, got {lanes}")
        self._security: Security | None = None if tls is None else security(tls, party)
        self._party, self._lanes, self._patience = party, lanes, patience
        self._changed = threading.Condition()
        self._up: dict[int, Lane] = {}
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._complaint, self._complained = "", -_COMPLAINTS_APART

    @property
    def level(self) -> int:
        """Lanes that are up."""
        with self._changed:
            return len(self._up)

    def wait_up(self, seconds: float) -> bool:
        """Whether every lane is up, waiting that long for it."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._up) == self._lanes, seconds)

    def close(self) -> None:
        """End every lane; requests that are under way get PeerFailure."""
        self._closing.set()
        with self._changed:
            for lane in self._up.values():
                lane.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(1.0)

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name=work.__name__.strip("_"), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _made(self, transport: Transport, number: int = 0) -> Lane:
        lane = opened(transport, self._security, fresh_hello(self._party, number, self._lanes), self._patience)
        self._complaint = ""
        return lane

    def _complain(self, message: str) -> None:
        """Log why there is no lane: once, not with every attempt, and never faster than strangers should fill a log."""
        now = time.monotonic()
        if message == self._complaint or now < self._complained + _COMPLAINTS_APART or self._closing.is_set():
            return
        self._complaint, self._complained = message, now
        log.warning("a lane was not made, or lost: %s", message)
