"""Calls at a given rate, whether or not they are answered: what callers do who do not know of each other.

Moments are those of a Poisson process, drawn beforehand. A call that the server's windows hold back waits here, and its latency
counts from when it was due.
"""

from __future__ import annotations

import random
import selectors
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from time import monotonic

from secure_infer.address import parse
from secure_infer_benchmarks.stress.overload_http2 import Call, Connection, request_headers

ID_BYTES = 16


@dataclass(frozen=True)
class Load:
    """rate: calls a second; 0: `in_flight` at a time, another when one ends. patience: seconds that callers wait for an answer.
    requests: messages that are sent in turn, cut where the request's id belongs; each goes out under an id of its own."""

    address: str
    method: str
    rate: float
    seconds: float
    patience: float
    connections: int
    requests: Sequence[tuple[bytes, bytes]]
    seed: int = 0
    in_flight: int = 16


def generate(pipe: Pipe, load: Load) -> None:
    """Send it all; the calls, each with its answer, go through the pipe."""
    pipe.send(Generator(load).run())
    pipe.close()


class Generator:
    """One process's share of the load."""

    def __init__(self, load: Load) -> None:
        host, port = parse(load.address, "address")
        self._load = load
        self._headers = request_headers(load.method, load.address, load.patience)
        self._connections = [Connection(host, port) for _ in range(load.connections)]
        self._selector = selectors.DefaultSelector()
        for connection in self._connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._random = random.Random(load.seed)

    def run(self) -> list[Call]:
        """All calls, in no order."""
        load, done, number = self._load, list[Call](), 0
        due = monotonic()
        end = due + load.seconds
        while True:
            now = monotonic()
            while due <= now and due < end and (load.rate or number - len(done) < load.in_flight):
                connection = self._connections[number % len(self._connections)]
                before, after = load.requests[number % len(load.requests)]
                message = b"".join((before, self._random.randbytes(ID_BYTES), after))
                connection.call(Call(number, due), self._headers, message)
                number += 1
                due = due + self._random.expovariate(load.rate) if load.rate else now
            if max(due, now) >= end and (now > end + load.patience or not any(c.under_way for c in self._connections)):
                break
            done += self._turn(now, min(0.05, due - now) if load.rate and due < end else 0.05)
        for connection in self._connections:
            done += connection.lose(monotonic())
            connection.close()
        return done

    def _turn(self, now: float, seconds: float) -> list[Call]:
        """Write what can be written, then take what comes within that time."""
        for connection in self._connections:
            blocked = not connection.closed and connection.write(now)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0)
            if not connection.closed and self._selector.get_key(connection.socket).events != events:
                self._selector.modify(connection.socket, events, connection)
        ended: list[Call] = []
        for key, events in self._selector.select(max(0.0, seconds)):
            if events & selectors.EVENT_READ:
                ended += key.data.read(monotonic())
                if key.data.closed:
                    self._selector.unregister(key.fileobj)
        return ended
