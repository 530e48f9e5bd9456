"""Evaluation on the event loop: a query at a time, callers in turn, and never more accepted than is soon done.

Between two queries the loop sees to everything else once: calls that came, refusals, health checks. A call of many queries
takes a turn for each. What gRPC has not handed over yet is not seen here; `app` bounds that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from time import perf_counter

from secure_infer.errors import ResourceExhausted
from secure_infer_server import shares

ROOM = 0.2
"""Seconds of work that wait at most."""
LEARN = 0.05
"""Weight of the last turn in how much longer turns take than was estimated."""


class _Place:
    """Somebody's turn, to come. first: its seconds; seconds: and those of what the call will take after it."""

    __slots__ = ("accepted", "first", "seconds", "turn")

    def __init__(self, first: float, seconds: float, accepted: bool) -> None:
        self.first, self.seconds, self.accepted = first, seconds, accepted
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Turns:
    """Of one event loop. room: seconds of work that wait for their turn at most. learn: 0 takes estimates as they are."""

    def __init__(self, room: float = ROOM, learn: float = LEARN) -> None:
        self._room, self._learn = room, learn
        self._waiting: OrderedDict[str, deque[_Place]] = OrderedDict()
        self._seconds: dict[str, float] = {}
        self._busy = False
        self._began = self._estimate = 0.0
        self._slower = 1.0

    @property
    def waiting(self) -> float:
        """Seconds that what waits will take, as turns go at present."""
        return self._slower * sum(self._seconds.values())

    def has_room(self, caller: str, seconds: float) -> bool:
        return not self._waiting or shares.may_wait(self._seconds, caller, seconds, self._room / self._slower)

    def require_room(self, caller: str, seconds: float) -> None:
        """Raise ResourceExhausted where `take` would."""
        if not self.has_room(caller, seconds):
            raise self._full()

    async def take(self, caller: str, seconds: float, more: int = 0, *, accepted: bool = False) -> None:
        """Wait for a turn of about that long; `give` ends it. more: of such turns the call will take after it. accepted: it has
        had turns before, and is not refused.

        Raises ResourceExhausted, at once or when a caller who waits with less needs the place.
        """
        if not self._busy:
            self._busy = True
            self._began, self._estimate = perf_counter(), seconds
            return
        whole = seconds * (1 + more)
        if not accepted:
            self.require_room(caller, whole)
            if self._waiting and self.waiting + self._slower * whole > self._room:
                self._displace(shares.greediest(self._seconds))
        place = _Place(seconds, whole, accepted)
        self._waiting.setdefault(caller, deque()).append(place)
        self._seconds[caller] = self._seconds.get(caller, 0.0) + whole
        try:
            await place.turn
        except asyncio.CancelledError:
            if place.turn.done() and not place.turn.cancelled() and place.turn.exception() is None:
                self.give()  # it came together with the end of the call
            else:
                self._remove(caller, place)
            raise

    def give(self) -> None:
        """The turn is over; the next one comes once the loop has seen to others."""
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        now = perf_counter()
        if self._estimate:  # what came between two turns counts as well
            ratio = (now - self._began) / self._estimate
            self._slower = max(1.0, (1 - self._learn) * self._slower + self._learn * ratio)
        while self._waiting:
            caller, places = next(iter(self._waiting.items()))
            place = places[0]
            self._remove(caller, place)
            if caller in self._waiting:
                self._waiting.move_to_end(caller)
            if not place.turn.done():
                self._began, self._estimate = now, place.first
                place.turn.set_result(None)
                return
        self._busy = False

    def _displace(self, caller: str) -> None:
        newest = next((place for place in reversed(self._waiting[caller]) if not place.accepted), None)
        if newest is not None:
            self._remove(caller, newest)
            if not newest.turn.done():
                newest.turn.set_exception(self._full())

    def _remove(self, caller: str, place: _Place) -> None:
        places = self._waiting.get(caller)
        if places is None or place not in places:
            return
        places.remove(place)
        self._seconds[caller] -= place.seconds
        if not places:
            del self._waiting[caller], self._seconds[caller]

    def _full(self) -> ResourceExhausted:
        waiting = self.waiting
        return shares.refused(f"as much waits already as this server does in {1e3 * waiting:.0f} ms", waiting)
