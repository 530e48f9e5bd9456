"""A link with a delay: a TCP forwarder on loopback that hands every byte on after a fixed time, in a process of its own.

    python -m secure_infer_benchmarks.forwarder 127.0.0.1:7000 --round-trip-ms 20 --megabits 100

Bytes leave one after another at the link's rate and arrive half a round trip later, each way by itself:

    free = max(free, now) + bytes / rate;  arrives = free + round trip / 2

`forwarder_precision` measures how exact that is. Not emulated: a connection's set-up (one round trip more on a real link),
loss, and the congestion window, by which a new connection's first messages beyond about 14 kB take further round trips.
Figures through it are those of a warm link.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from secure_infer import address

MODULE = "secure_infer_benchmarks.forwarder"
SEGMENT = 1 << 14
"""Bytes that arrive together on a link with a rate."""
MOST_HELD = 1 << 23
"""Bytes under way one way before the sender has to wait: beyond what 1 Gbit/s holds in 60 ms."""
EARLY = 0.0005
"""Seconds before bytes are due at which waiting turns from sleeping to polling."""


class Forwarder:
    """Forwards connections to `target`, "HOST:PORT", in its own process; `address` is where it listens ("HOST:PORT").

    round_trip_ms: added to every exchange, half of it each way. megabits: Mbit/s each way and connection; None: no limit.
    The process ends with `close`, or when this one ends. Raises OSError when it does not start, SettingsError for a target
    that is no address.
    """

    def __init__(self, target: str, round_trip_ms: float = 0.0, megabits: float | None = None) -> None:
        address.parse(target, "target")
        command = [sys.executable, "-m", MODULE, target]
        command += ["--round-trip-ms", repr(round_trip_ms)] + (
            [] if megabits is None else ["--megabits", repr(megabits)]
        )
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the forwarder to {target} ended with status {self._process.wait()} before it listened")
        self.address = str(json.loads(line)["address"])

    def close(self) -> None:
        """End the process and with it all its connections."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Side(asyncio.Protocol):
    """One socket of a connection. What its partner receives is sent here when it is due, in order.

    delay: seconds one way. rate: bytes a second.
    """

    transport: asyncio.Transport
    partner: _Side

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, rate: float) -> None:
        self._loop, self._delay, self._rate = loop, delay, rate
        self._waiting: deque[tuple[float, int, Callable[[], None]]] = deque()
        self._held = 0
        self._free = 0.0
        self._full = False
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        partner = self.partner
        step = len(data) if self._rate == float("inf") else SEGMENT
        for start in range(0, len(data), step):
            part = data[start : start + step]
            partner.later(len(part), partial(partner.transport.write, part))

    def eof_received(self) -> bool:
        self.partner.later(0, self.partner.finish)
        return True  # the other way stays open

    def connection_lost(self, error: Exception | None) -> None:
        self._waiting.clear()
        if hasattr(self, "partner"):
            self.partner.later(0, self.partner.transport.abort)

    def pause_writing(self) -> None:
        self._full = True
        self.partner.transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self._make_room()

    def later(self, size: int, action: Callable[[], None]) -> None:
        """Do `action`, which sends `size` bytes, when they have arrived; nothing once this side is closed."""
        if self.transport.is_closing():
            return
        now = self._loop.time()
        self._free = max(self._free, now) + size / self._rate
        due = self._free + self._delay
        if due <= now and not self._waiting:
            action()
            return
        self._waiting.append((due, size, action))
        self._held += size
        if self._held > MOST_HELD:
            self.partner.transport.pause_reading()
        if len(self._waiting) == 1:
            self._await(due)

    def _await(self, due: float) -> None:
        """Deliver at `due`. Timers fire late by some 0.2 ms, so the last stretch is spent going round the event loop."""
        if due - self._loop.time() > EARLY:
            self._loop.call_at(due - EARLY, self._deliver)
        else:
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._loop.time():
            _, size, action = self._waiting.popleft()
            self._held -= size
            action()
        self._make_room()
        if self._waiting:
            self._await(self._waiting[0][0])

    def _make_room(self) -> None:
        if not self._full and self._held <= MOST_HELD:
            self.partner.transport.resume_reading()

    def finish(self) -> None:
        """The end of one way; after the second the connection is closed."""
        self._finished = True
        with suppress(OSError):  # its other end may have gone already
            self.transport.write_eof()
        if self.partner._finished:
            self.transport.close()
            self.partner.transport.close()


class _Accepted(_Side):
    """The side of a connection that was accepted; it opens the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, rate: float, target: tuple[str, int]) -> None:
        super().__init__(loop, delay, rate)
        self._connect = partial(loop.create_connection, partial(_Side, loop, delay, rate), *target)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            _, other = await self._connect()
        except OSError:
            self.transport.abort()
            return
        self.partner, other.partner = other, self
        if self.transport.is_closing():  # given up in the meantime
            other.transport.abort()
        self.transport.resume_reading()


async def _serve(target: tuple[str, int], delay: float, rate: float) -> None:
    """Forward until standard input closes, which it does when the process that started this one ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Accepted(loop, delay, rate, target), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"event": "ready", "address": f"127.0.0.1:{port}"}) + "\n")
    sys.stdout.flush()
    closed = asyncio.Event()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 1 << 12):
            closed.set()

    loop.add_reader(sys.stdin.fileno(), look)
    await closed.wait()


def main() -> int:
    """Forward connections to HOST:PORT until standard input closes."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=main.__doc__)
    parser.add_argument("target", metavar="HOST:PORT", help="where connections are forwarded to")
    parser.add_argument("--round-trip-ms", type=float, default=0.0, metavar="MS", help="half of it is added each way")
    parser.add_argument(
        "--megabits", type=float, default=float("inf"), metavar="MBIT/S", help="each way and connection"
    )
    options = parser.parse_args()
    if not options.round_trip_ms >= 0 or not options.megabits > 0:
        parser.error("a round trip of at least 0 and a rate above 0 are needed")
    # Only select() takes its timeout in microseconds; epoll's whole milliseconds would be added to every delay.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(
            _serve(address.parse(options.target, "target"), options.round_trip_ms / 2e3, options.megabits * 1e6 / 8)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
