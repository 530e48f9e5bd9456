"""Two parties and a dealer on loopback with mutual TLS on every link, beside stock CrypTen and plaintext in the same run.

Kinds of queries take turns, so that what changes on the machine meanwhile hits all alike. Stock CrypTen, whose connections
are neither encrypted nor authenticated, is asked about the same heads right after. Milliseconds are the client's, from rows
to answers. Run with OPENBLAS_NUM_THREADS=1 for figures of one thread a process, which is what CrypTen gets.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head, ReLU, Square
from secure_infer.mpc.program import Answers, Comparisons, Weights
from secure_infer_benchmarks import delays, peers
from secure_infer_benchmarks.embeddings import rows_of
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.queries import warmed_up
from secure_infer_benchmarks.synthetic import hidden_head, unit_norm_head

SHARED, LABEL, CRYPTEN = Weights.SHARED, Answers.LABEL, Comparisons.CRYPTEN
Item = TypeVar("Item")

ROWS = 512
LARGE_EVERY = 5
"""Queries of many records take their turn in one round of so many."""
LARGE_PAUSE = 0.3
"""Seconds after those, in which the stores fill again."""


@dataclass(frozen=True)
class Settings:
    """rounds: in each, every kind of single query once. delayed: queries of a kind on links with a delay. stock_seconds: of
    stock CrypTen, for each way to ask about a head."""

    rounds: int = 200
    delayed: int = 40
    stock_seconds: float = 4.0


QUICK = Settings(rounds=20, delayed=8, stock_seconds=1.0)


@dataclass(frozen=True)
class Case:
    """A row of the report. records: in a query. delayed: whether it is also asked on links with a delay."""

    served: Served
    records: int = 1
    delayed: bool = False

    @property
    def name(self) -> str:
        return self.served.name + (f", {self.records} records" if self.records > 1 else "")


def cases() -> list[Case]:
    """The published rows."""
    linear, flagship = unit_norm_head(384, 10), Head.load(models.path() / "icd10-chapter.head")
    square, relu = (hidden_head(384, 64, 10, between) for between in (Square(), ReLU()))
    flagship_both = Served("icd10-chapter", flagship)
    relu_shared = Served("relu-shared", relu, SHARED)
    return [
        Case(Served("linear", linear), delayed=True),
        Case(Served("linear-shared", linear, SHARED)),
        Case(Served("square", square), delayed=True),
        Case(Served("square-shared", square, SHARED), delayed=True),
        Case(relu_shared, delayed=True),
        Case(Served("relu-shared-label", relu, SHARED, LABEL), delayed=True),
        Case(Served("relu-shared-crypten", relu, SHARED, comparisons=CRYPTEN), delayed=True),
        Case(Served("relu-shared-label-crypten", relu, SHARED, LABEL, CRYPTEN)),
        Case(flagship_both, delayed=True),
        Case(Served("icd10-chapter-shared", flagship, SHARED)),
        Case(Served("icd10-chapter-label", flagship, answers=LABEL)),
        Case(flagship_both, records=256),
        Case(relu_shared, records=256),
    ]


def report(quick: bool) -> dict[str, Any]:
    """The published cases, stock CrypTen's rows of their heads, and latency on links with a delay."""
    return measure(cases(), QUICK if quick else Settings())


def measure(wanted: Sequence[Case], settings: Settings, stock: Sequence[peers.Peer] = peers.SHARING) -> dict[str, Any]:
    """The same for any cases; stock: peers that share secrets, which are asked about the same heads."""
    _say(f"starting a dealer and two parties for {len(wanted)} cases")
    with Parties(list({case.served.name: case.served for case in wanted}.values())) as parties:
        found = _ours(parties, wanted, settings)
        load = {"cases": os.getloadavg()[0]}
        _say(f"on links with a delay: {settings.delayed} rounds")
        delayed = delays.measure(parties, [case.served for case in wanted if case.delayed], settings.delayed)
        load["delays"] = os.getloadavg()[0]
    others = beside(wanted, settings, stock)
    load["stock"] = os.getloadavg()[0]
    for case in wanted:
        row = found[case.name]
        measured = [other for other in others[case.name] if "client_ms" in other]
        if "reason" not in row and measured:
            row["ratio_to_stock"] = row["client_ms"]["median"] / measured[0]["client_ms"]["median"]
    return {
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "as the library chooses"),
        "links": "loopback; mutual TLS 1.3 between the parties, mutual TLS to them and to the dealer",
        "load_average_after": load,
        "cases": found,
        "stock": others,
        "delays": delayed,
    }


def _say(line: str) -> None:
    """A line on stderr, terminal or not: the suite takes minutes."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def announced(doing: str, items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """The items, each said when its turn comes."""
    for number, item in enumerate(items, 1):
        _say(f"{doing} {name(item)} ({number} of {len(items)})")
        yield item


def _ours(parties: Parties, wanted: Sequence[Case], settings: Settings) -> dict[str, Any]:
    rows = {
        id(head): rows_of(head, ROWS) for head in {id(case.served.head): case.served.head for case in wanted}.values()
    }
    asked = [(case.name, case.served, rows[id(case.served.head)], case.records) for case in wanted]
    with ExitStack() as stack:
        found, reasons = warmed_up(stack, parties, announced("warming up", asked, lambda one: one[0]))
        _say(f"asking in turn: {settings.rounds} rounds")
        for turn in tqdm(range(settings.rounds), desc="secret sharing", leave=False, disable=None):
            for queries in found.values():
                if queries.records == 1 or turn % LARGE_EVERY == 0:
                    queries.ask()
                    sleep(delays.PAUSE if queries.records == 1 else LARGE_PAUSE)
        told = {name: queries.report() for name, queries in found.items()}
    return {case.name: told.get(case.name) or {"reason": reasons[case.name]} for case in wanted}


def beside(wanted: Sequence[Case], settings: Settings, stock: Sequence[peers.Peer]) -> dict[str, list[dict[str, Any]]]:
    """By case, each peer's row of the same head, weights, answers and number of records, or why there is none.

    client_ms: median of sending shares to holding both answers, with those of splitting and adding.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    done: dict[tuple[int, Weights, Answers, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in announced("stock CrypTen:", wanted, lambda one: one.name):
            one = case.served
            key = (id(one.head), one.weights, one.answers, case.records)
            if key not in done:
                file = Path(folder) / "workload.npz"
                peers.Workload(one.name, one.head, rows_of(one.head, ROWS)[: max(64, case.records)]).save(file)
                done[key] = [_row(row) for peer in stock for row in _asked(peer, file, case, settings)]
            found[case.name] = done[key]
    return found


def _asked(peer: peers.Peer, file: Path, case: Case, settings: Settings) -> list[dict[str, Any]]:
    weights = "shared" if case.served.weights is Weights.SHARED else "public"
    options = ["--providers", "TTP", "--weights", weights, "--answers", str(case.served.answers)]
    options += ["--batch", str(case.records), "--queries", "200", "--seconds", str(settings.stock_seconds)]
    return peers.run(peer, file, options=options)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    if "reason" in row:
        return row
    both = {name: row["server_ms"][name] + row["client_ms"][name] for name in ("median", "lowest")}
    return row | {"client_ms": {"median": both["median"], "min": both["lowest"]}}
