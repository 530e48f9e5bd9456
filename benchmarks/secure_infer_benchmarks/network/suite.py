"""Which scheme and plan wins on which link: every way to ask, over real sockets through emulated links, beside predictions.

One CKKS server, and two parties with their dealer; mutual TLS 1.3 on every connection. Each connection has a `Forwarder` of its
own in its way, with half the round trip each way and the link's rate: client to server, client to each party, party to party,
dealer to parties. Ways take turns, one record a query. The first call counts from a client without a connection to its first
answer, keys uploaded. A connection's set-up and slow start are not emulated: a first call takes longer on a real link.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from tqdm import tqdm

from secure_infer import models
from secure_infer.ckks.link import Link
from secure_infer.heads import Head
from secure_infer.mpc.program import Answers, Weights
from secure_infer_benchmarks.figures import Row, Suite, figure, ratio
from secure_infer_benchmarks.forwarder import Forwarder
from secure_infer_benchmarks.network import forwarder as forwarding
from secure_infer_benchmarks.network import table as tables
from secure_infer_benchmarks.network.ways import Encrypted, Pem, Plain, Shared, Way, offers_of
from secure_infer_benchmarks.parties import HOST, Parties, Served
from secure_infer_benchmarks.parties import server as tls_server
from secure_infer_benchmarks.synthetic import inputs, square_head
from secure_infer_benchmarks.timed import Floats, TimedQueries
from secure_infer_server.commands import certs

LINEAR, FLAGSHIP, SQUARE = "icd10-chapter-linear", "icd10-chapter", "square-384-64-10"
SHARED_WAYS = {
    LINEAR: ((Weights.REPLICATED, Answers.LOGITS), (Weights.SHARED, Answers.LOGITS)),
    FLAGSHIP: (
        (Weights.REPLICATED, Answers.LOGITS),
        (Weights.SHARED, Answers.LOGITS),
        (Weights.SHARED, Answers.LABEL),
    ),
    SQUARE: ((Weights.REPLICATED, Answers.LOGITS), (Weights.SHARED, Answers.LOGITS)),
}
WARM_UP = 2
PAUSE = 0.02
"""Seconds after a query, in which blinds and correlations are made again and nothing else is asked."""
ROWS = 64


@dataclass(frozen=True)
class Emulated:
    """A link: Mbit/s each way of each connection, its round trip, and in how many rounds every way is asked once."""

    name: str
    megabits: float
    round_trip_ms: float
    rounds: int

    @property
    def link(self) -> Link:
        """As the planner takes it."""
        return Link.parse(f"{self.megabits:g}mbit,{self.round_trip_ms:g}ms")

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "megabits": self.megabits, "round_trip_ms": self.round_trip_ms}


LAN, WAN, MOBILE = Emulated("lan", 1000, 0.5, 40), Emulated("wan", 100, 20, 20), Emulated("mobile", 20, 60, 10)


@dataclass(frozen=True)
class Settings:
    """heads: by name, see `heads`. precise: also measure how exact the emulation is, and compare rates with the kernel's."""

    links: tuple[Emulated, ...] = (LAN, WAN, MOBILE)
    heads: tuple[str, ...] = (LINEAR, FLAGSHIP, SQUARE)
    precise: bool = True


QUICK = Settings((Emulated("wan", 100, 20, 3),), (LINEAR, FLAGSHIP), precise=False)


class Asked(TimedQueries):
    """One way on one link. first_call_ms, key_bytes: of the first call, which is not among the others."""

    def __init__(self, way: Way) -> None:
        super().__init__(way.head, way.ask)
        self.way = way
        self.first_call_ms = 0.0
        self.key_bytes = 0

    def start(self, stack: ExitStack, rows: Floats) -> None:
        """The first call, and some that are not counted: stores fill, windows grow."""
        started = perf_counter()
        self.way.open(stack)
        _, stats = self.way.ask(rows[:1])
        self.first_call_ms = 1e3 * (perf_counter() - started)
        self.key_bytes = 0 if stats is None else stats.key_bytes
        for row in rows[1 : 1 + WARM_UP]:
            self.way.ask(row[None])

    def ask(self, x: Floats) -> None:
        """One query of one row (1, d)."""
        self.compare(self.query(x), self.head.evaluate(x))

    def row(self, emulated: Emulated, unit: Sequence[float]) -> Row:
        """The report's row. unit: milliseconds of the plaintext call of the same rounds."""
        way = self.way
        counts: dict[str, Any] = {
            **way.expected(emulated.link),
            "rounds": 0,
            "link_bytes": 0,
            "key_bytes": self.key_bytes,
            "agreement": self.agreement,
        }
        figures = {
            "ratio": ratio(self.call_ms, unit),
            "call_ms": figure(self.call_ms),
            "first_call_ms": figure([self.first_call_ms]),
        }
        if isinstance(way, Plain):
            counts["bytes_up"], counts["bytes_down"] = way.bytes
        else:
            last = self.stats[-1]
            counts |= {name: getattr(last, name) for name in ("bytes_up", "bytes_down", "link_bytes")}
            counts["rounds"] = last.link_rounds
            for name in ("network_ms", "server_ms"):
                figures[name] = figure([getattr(one, name) for one in self.stats])
        return {
            "id": f"{emulated.name}/{way.head_name}/{way.name}",
            "link": emulated.told(),
            "head": way.head_name,
            "scheme": way.scheme,
            "plan": way.plan,
            "figures": figures,
            "counts": counts,
        }


def heads() -> dict[str, Head]:
    """What is asked about, by name: the packaged heads and a synthetic one with 64 squares."""
    packaged = {name: Head.load(models.path() / f"{name}.head") for name in (LINEAR, FLAGSHIP)}
    return packaged | {SQUARE: square_head(384, 64, 10)}


def measure(quick: bool) -> Suite:
    """Every head on every link in every way."""
    return run(QUICK if quick else Settings())


def run(settings: Settings) -> Suite:
    """The suite with those settings."""
    chosen = {name: head for name, head in heads().items() if name in settings.heads}
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pem = certs.make(folder / "certs", [HOST], "benchmark", days=2)
        server = stack.enter_context(tls_server(folder / "models", chosen, pem))
        overhead = forwarding.overhead(server.address, pem, next(iter(chosen)), settings.precise)
        for emulated in settings.links:
            rows += _on(emulated, chosen, server.address, pem)
    precise = forwarding.precision([one.told() for one in settings.links]) if settings.precise else {}
    return {
        "rows": rows,
        "links": "each connection through a forwarder of its own; mutual TLS 1.3",
        "forwarder": {**overhead, **precise},
        "winners": tables.winners(rows),
        "load_average_after": round(os.getloadavg()[0], 2),
    }


def _on(emulated: Emulated, chosen: dict[str, Head], address: str, pem: Pem) -> list[Row]:
    """The rows of one link."""
    shared = [Served.named(name, head, *way) for name, head in chosen.items() for way in SHARED_WAYS[name]]
    x = {name: inputs(head.features, ROWS) * min(1.0, head.contract.largest_norm) for name, head in chosen.items()}
    with ExitStack() as stack:
        far = stack.enter_context(Forwarder(address, emulated.round_trip_ms, emulated.megabits)).address
        parties = stack.enter_context(Parties(shared, emulated.round_trip_ms, emulated.megabits))
        asked = [Asked(way) for name, head in chosen.items() for way in _ways(name, head, address, far, pem, parties)]
        for one in tqdm(asked, desc=f"{emulated.name}: first calls", leave=False, disable=None):
            one.start(stack, x[one.way.head_name])
        for turn in tqdm(range(emulated.rounds), desc=emulated.name, leave=False, disable=None):
            for one in asked:
                one.ask(x[one.way.head_name][[turn % ROWS]])
                sleep(PAUSE)
        plain = {one.way.head_name: one.call_ms for one in asked if isinstance(one.way, Plain)}
        return [one.row(emulated, plain[one.way.head_name]) for one in asked]


def _ways(name: str, head: Head, address: str, far: str, pem: Pem, parties: Parties) -> Iterator[Way]:
    """far: the server's address behind the link."""
    yield Plain(name, head, far, pem)
    offers, costs = offers_of(address, pem, name)
    for offer in offers:
        yield Encrypted(name, head, far, pem, offer, costs)
    for weights, answers in SHARED_WAYS[name]:
        yield Shared(name, head, parties, weights, answers)


table = tables.table
