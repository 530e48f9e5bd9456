"""Every set asked of real processes on loopback: a server (CKKS), then two parties and a dealer (MPC).

`ckks` and `mpc` send all rows of a set in one `Client.predict`, which divides them as it does for every caller: under CKKS
they go by a batch plan where that is quicker. `ckks/one by one` asks in queries of one row, by the plan for single queries: a
draw of the ICD-10-CM texts, which is a set of its own, and all of WDBC. The processes serve the packaged heads with the
defaults of `serve` and `party`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head, ModelSpec
from secure_infer_benchmarks.accuracy import sets
from secure_infer_benchmarks.accuracy.measures import compared
from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_client import Client
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer
from secure_infer_client.prediction import CallStats

Floats = NDArray[np.float64]
CKKS, ALONE, MPC = ("ckks", "ckks/one by one", "mpc")
TIMEOUT = 600.0
"""Seconds of a call: of all rows of a set."""


@dataclass(frozen=True)
class Options:
    """share: one text in so many is asked about. one_by_one: ICD-10-CM texts that are also asked alone, at most."""

    share: int = 1
    one_by_one: int = 1000
    heads: tuple[str, ...] = (*sets.CHAPTERS, "wdbc")


QUICK = Options(share=10, one_by_one=50)


@dataclass(frozen=True, eq=False)
class Case:
    """A head, a way to ask it, and what: rows (B, d) of a labelled set, none when there is no embedder."""

    labelled: sets.Labelled
    head: str
    way: str
    rows: Floats | None

    @property
    def name(self) -> str:
        return f"{self.labelled.name}/{self.head}/{self.way}"

    def naming(self) -> Row:
        """What the row is."""
        return {
            "id": self.name,
            "set": self.labelled.name,
            "head": self.head,
            "scheme": self.way.partition("/")[0],
            "way": self.way,
            "set_described": self.labelled.title,
        }

    def row(self, client: Client, bar: tqdm[Any]) -> Row:
        """Ask about the rows, and compare; bar: moved by every row answered."""
        assert self.rows is not None
        logits, stats = (one_by_one if self.way == ALONE else together)(client, self.rows, bar)
        head = Head.load(models.path() / f"{self.head}.head")
        spec, plain = ModelSpec.of(self.head, head), head.evaluate(self.rows)
        figures = compared(spec, self.labelled.labels, logits, plain, stats.error_bound)
        return self.naming() | {"plan": stats.plan} | figures


def together(client: Client, x: Floats, bar: tqdm[Any]) -> tuple[Floats, CallStats]:
    """Logits (B, K) of rows (B, d) in one call of the SDK, and its cost."""
    start = int(bar.n)
    logits = client.predict(x, progress=lambda done: _move(bar, start + round(done * len(x))))
    _move(bar, start + len(x))
    return logits, client.last_call.stats


def one_by_one(client: Client, x: Floats, bar: tqdm[Any]) -> tuple[Floats, CallStats]:
    """The same in a call a row; the cost is that of all."""
    logits, stats = [], []
    for row in x:
        logits.append(client.predict(row[None]))
        stats.append(client.last_call.stats)
        bar.update()
    return np.concatenate(logits), reduce(add, stats)


def _move(bar: tqdm[Any], place: int) -> None:
    bar.update(place - bar.n)


def measure(quick: bool, options: Options | None = None) -> Suite:
    """The suite. quick: a tenth of the texts; options: something else than that or all of them."""
    options = options or (QUICK if quick else Options())
    cases = list(_cases(options))
    found = {case.name: case.naming() | {"reason": NO_TEXT} for case in cases if case.rows is None}
    able = [case for case in cases if case.rows is not None]
    with tqdm(total=sum(len(case.labelled.labels) for case in able), desc="accuracy", leave=False, disable=None) as bar:
        for started, ways in ((_server, (CKKS, ALONE)), (_parties, (MPC,))):
            some = [case for case in able if case.way in ways]
            if some:
                bar.set_postfix_str("starting")
                with started(options.heads) as connect:
                    found |= {row["id"]: row for row in _asked(some, connect, bar)}
    drawn = {case.labelled.name: case.labelled.drawn for case in cases}
    return {"rows": [found[case.name] for case in cases], "sets": drawn}


NO_TEXT = "there is no embedder here; pip install 'secure-infer[text]'"
Connect = Callable[[str], Client]
"""A client of the model of that name; the caller closes it."""


def _cases(options: Options) -> Iterator[Case]:
    """Of every set and head `ckks` and `mpc`; of ICD-10-CM and WDBC, `ckks/one by one` too."""
    for labelled in sets.load(options.share):
        heads = [head for head in labelled.heads if head in options.heads]
        try:
            rows = labelled.rows() if heads else None
        except ModuleNotFoundError:
            rows = None
        places = sets.draw(options.one_by_one if labelled.texts else len(labelled.labels), len(labelled.labels))
        for head in heads:
            yield Case(labelled, head, CKKS, rows)
            yield Case(labelled, head, MPC, rows)
        for head in heads if labelled.name != "icd9" else ():
            yield Case(labelled.some(places), head, ALONE, None if rows is None else rows[places])


def _asked(cases: Sequence[Case], connect: Connect, bar: tqdm[Any]) -> Iterator[Row]:
    for head in dict.fromkeys(case.head for case in cases):
        with connect(head) as client:
            for case in cases:
                if case.head == head:
                    bar.set_postfix_str(case.name)
                    yield case.row(client, bar)


@contextmanager
def _folder(heads: Sequence[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for head in heads:
            shutil.copy(models.path() / f"{head}.head", folder)
        yield Path(folder)


@contextmanager
def _server(heads: Sequence[str]) -> Iterator[Connect]:
    with _folder(heads) as folder, LocalServer(folder) as server:
        yield lambda head: Client(server.address, model=head, timeout=TIMEOUT)


@contextmanager
def _parties(heads: Sequence[str]) -> Iterator[Connect]:
    with _folder(heads) as folder, LocalParties(folder) as parties:
        yield lambda head: Client(parties.addresses, model=head, scheme="mpc", timeout=TIMEOUT)
