"""The lanes between two parties: what both ends have in common; `leader` and `follower` are the two.

Party 0 listens and leads requests; party 1 connects, as often as it takes, and follows. A lane that fails is closed by
both, and party 1 makes it anew with fresh nonces. A new lane takes the place of the old one of its number, whatever
that was doing: the other party has given it up. Another process takes the place of party 1 once the old one's lanes are
closed, not before: with lanes of both, requests would meet halves of neither.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from secure_infer.address import is_loopback, parse
from secure_infer.errors import PeerFailure, SettingsError
from secure_infer_server.callers.watched import Watched
from secure_infer_server.mpc.frames import INSTANCE_BYTES, Hello, Misfit
from secure_infer_server.mpc.lane import Lane, Patience, fresh_hello, opened
from secure_infer_server.mpc.transport import Security, Transport, watched
from secure_infer_server.tls import Tls

log = logging.getLogger(__name__)

LANES = 4
MAX_LANES = 64
_COMPLAINTS_APART = 1.0  # seconds
_FORGOTTEN = 60.0  # seconds after which a complaint that did not come again is news
_COMPLAINTS = 32


class Lanes:
    """What both ends have: checked settings, and the lanes that are up, by number."""

    def __init__(self, party: int, address: str, tls: Tls | None, lanes: int, patience: Patience) -> None:
        host, self._port = parse(address, "--peer")
        self._host = host.strip("[]")
        if tls is None and not is_loopback(host):
            raise SettingsError(f"--peer: without TLS parties talk on loopback only, got {host}")
        if not 1 <= lanes <= MAX_LANES:
            raise SettingsError(f"lanes: expected 1 to {MAX_LANES}, got {lanes}")
        self._security: Watched[Security] | None = None if tls is None else watched(tls, party)
        self._party, self._lanes, self._patience = party, lanes, patience
        self._changed = threading.Condition()
        self._up: dict[int, Lane] = {}
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._instance = secrets.token_bytes(INSTANCE_BYTES)
        self._complaints: OrderedDict[str, float] = OrderedDict()  # logged, and when each came last
        self._complained = -_COMPLAINTS_APART
        self._last_complaint = ""
        self._met = self._announced = False  # the other party, ever; that all lanes are up

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
        hello = fresh_hello(self._party, number, self._lanes, self._instance)
        if self._security is not None:
            self._security.refresh()  # renewed since: this lane has the new certificate, those that stand keep theirs
        return opened(
            transport, None if self._security is None else self._security.value, hello, self._patience, self._vet
        )

    def _vet(self, hello: Hello) -> None:
        """Raise Misfit unless a lane of that party 1 is to be taken in."""

    def _add(self, lane: Lane) -> None:
        """A lane is up; the condition is held."""
        self._announced &= bool(self._up)
        self._up[lane.number] = lane
        self._met, self._last_complaint = True, ""
        if len(self._up) == self._lanes and not self._announced:
            self._announced = True
            log.info("party %d is there: %d of %d lanes are up", 1 - self._party, self._lanes, self._lanes)
        self._changed.notify_all()

    def _complain(self, message: str, level: int = logging.WARNING) -> None:
        """Log why there is no lane: once, not with every attempt, and never faster than strangers should fill a log."""
        now = time.monotonic()
        with self._changed:
            self._last_complaint = message
            known = now < self._complaints.get(message, -_FORGOTTEN) + _FORGOTTEN
            if not known and (now < self._complained + _COMPLAINTS_APART or self._closing.is_set()):
                return
            self._complaints[message] = now
            self._complaints.move_to_end(message)
            if known:
                return
            self._complained = now
            if len(self._complaints) > _COMPLAINTS:
                self._complaints.popitem(last=False)
        log.log(level, "%s", message)


def complaint(error: PeerFailure) -> str:
    """What the log says of it."""
    what = "a lane was refused" if isinstance(error, Misfit) else "a lane was not made, or lost"
    return f"{what}: {error.message}"
