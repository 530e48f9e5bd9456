"""What every process that serves has in common: the port it binds, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_server.heap import Heap

log = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0
"""That calls under way have at most, once a process is to end. Orchestrators usually kill after 30."""
LOOK_SECONDS = 0.1
LAST_SECONDS = 0.5
"""For the last answers to be sent."""


def taken(address: str) -> str:
    """The words for an address that cannot be had."""
    return f"cannot listen on {address}: the port is in use, or the address is not this machine's"


def bound(server: Any, host: str, port: int, credentials: Any) -> str:
    """Bind a gRPC server (grpc or grpc.aio), without TLS when credentials are None; returns "HOST:PORT".

    port 0 picks a free one. Raises SettingsError when the address cannot be had.
    """
    wanted = f"{host}:{port}"
    try:
        if credentials is None:
            found = server.add_insecure_port(wanted)
        else:
            found = server.add_secure_port(wanted, credentials)
    except RuntimeError:
        found = 0
    if not found:
        raise SettingsError(taken(wanted))
    return f"{host}:{found}"


class Ending:
    """The end that a signal asks for.

    A handler runs between any two steps of the main thread, within those of a lock that it holds too: nothing here takes one.
    """

    def __init__(self) -> None:
        self._asked = False

    def heed_signals(self) -> None:
        """From now on, SIGTERM or SIGINT ends `wait`; a second one ends the process at once. For the main thread."""

        def end(*_: object) -> None:
            if self._asked:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTERM)
            self._asked = True

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Until a signal; memory that was freed meanwhile goes back to the system. look: to be called now and then."""
        heap = Heap()
        while not self._asked:
            time.sleep(LOOK_SECONDS)
            heap.tend()
            look()


class Underway:
    """How many calls are under way: told of each as an `observe.calls.Observer`. Thread-safe."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def begin(self, call: object, context: object) -> None:
        with self._lock:
            self._count += 1

    def end(self, call: object) -> None:
        with self._lock:
            self._count -= 1

    @property
    def count(self) -> int:
        return self._count


async def adrain(server: Any, underway: Underway, seconds: float) -> None:
    """Stop a grpc.aio server: no new calls, and those under way have so many seconds. Streams that only watch health do not
    keep it: it ends soon after the last call."""
    draining = _Draining(underway, seconds)
    stopping = asyncio.ensure_future(server.stop(seconds))
    await asyncio.wait([stopping], timeout=LOOK_SECONDS)
    while draining.goes_on() and not stopping.done():
        await asyncio.wait([stopping], timeout=LOOK_SECONDS)
    draining.over()
    await server.stop(min(LAST_SECONDS, seconds))
    await stopping


def drain(server: Any, underway: Underway, seconds: float) -> None:
    """As `adrain`, of a grpc server."""
    draining = _Draining(underway, seconds)
    stopped = server.stop(seconds)
    stopped.wait(LOOK_SECONDS)
    while draining.goes_on() and not stopped.is_set():
        stopped.wait(LOOK_SECONDS)
    draining.over()
    server.stop(min(LAST_SECONDS, seconds)).wait()


class _Draining:
    """Says in the log how it begins and how it ended."""

    def __init__(self, underway: Underway, seconds: float) -> None:
        self._underway, self._left, self._end = underway, underway.count, time.monotonic() + seconds
        log.info("draining: no new calls; %d under way have %g seconds", self._left, seconds)

    def goes_on(self) -> bool:
        """Whether calls are under way."""
        count = self._underway.count
        if count:
            self._left = count
        elif time.monotonic() < self._end:
            self._left = 0
        return count > 0

    def over(self) -> None:
        self.goes_on()
        if self._left:
            log.warning("drained: up to %d calls took longer and were ended", self._left)
        else:
            log.info("drained: all calls have ended")
