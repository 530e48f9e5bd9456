"""From rows to what is encrypted, in worker processes or in this one; a row that cannot be prepared is rejected alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from time import perf_counter
from typing import Protocol

import numpy as np

from secure_infer.errors import InternalFault, InvalidInput
from secure_infer.heads import ModelSpec
from secure_infer_client.cohort.rows import Rejected, Row
from secure_infer_client.text.embed import MiniLM
from secure_infer_client.text.prepare import Prepared, TextSide

PIECE = 256
"""Rows that a worker is given at a time."""


@dataclass(frozen=True)
class Ready:
    """rows: those that are to be scored, of which `prepared` holds the numbers; None where there are none. seconds: of work."""

    rows: list[Row]
    prepared: Prepared | None
    rejected: list[Rejected]
    seconds: float = 0.0


class Prepare(Protocol):
    """All of the rows, or InvalidInput."""

    def __call__(self, rows: Sequence[Row], /) -> Prepared: ...


@dataclass(frozen=True)
class Features:
    """Rows that are numbers already; held to the model's contract."""

    spec: ModelSpec

    def __call__(self, rows: Sequence[Row], /) -> Prepared:
        widths = {len(row.given) for row in rows}
        if widths != {self.spec.contract.features}:
            raise InvalidInput(f"expected {self.spec.contract.features} features, got {max(widths)}")
        given = np.array([row.given for row in rows], dtype=np.float64)
        return Prepared(self.spec.contract.check(given), list(range(len(rows))), [()] * len(rows), [1] * len(rows))


@dataclass
class Texts:
    """Texts, de-identified where `remove` says so and embedded; made anew in every process. threads: of one embedder."""

    spec: ModelSpec
    remove: bool
    long_text: str
    label_only: bool
    threads: int | None = None
    side: TextSide | None = None

    def __call__(self, rows: Sequence[Row], /) -> Prepared:
        if self.side is None:
            embedder = MiniLM(threads=self.threads) if self.spec.embedder == MiniLM.identity else None
            self.side = TextSide(embedder, remove=self.remove, long_text=self.long_text)
        return self.side.prepare([str(row.given) for row in rows], self.spec, label_only=self.label_only)


def ready(prepare: Prepare, rows: Sequence[Row]) -> Ready:
    """The rows prepared together. Those that cannot be are found by halving, so that nothing is prepared twice but them."""
    started = perf_counter()
    found = _halved(prepare, list(rows))
    return Ready(found.rows, found.prepared, found.rejected, perf_counter() - started)


def _halved(prepare: Prepare, rows: list[Row]) -> Ready:
    if not rows:
        return Ready([], None, [])
    try:
        return Ready(rows, prepare(rows), [])
    except InvalidInput as error:
        if len(rows) > 1:
            return joined([_halved(prepare, rows[: len(rows) // 2]), _halved(prepare, rows[len(rows) // 2 :])])
        reason = error.message.removeprefix("texts[0]: ").removeprefix("input: ")
        return Ready([], None, [Rejected(rows[0].number, reason)])


def joined(pieces: Sequence[Ready]) -> Ready:
    """The pieces as one, in their order; seconds are added."""
    rows = [row for piece in pieces for row in piece.rows]
    parts = [piece.prepared for piece in pieces if piece.prepared is not None]
    starts = np.cumsum([0, *(len(part.removed) for part in parts)]).tolist()
    prepared = (
        None
        if not parts
        else Prepared(
            np.concatenate([part.rows for part in parts]),
            [owner + start for part, start in zip(parts, starts, strict=False) for owner in part.owner],
            [one for part in parts for one in part.removed],
            [one for part in parts for one in part.windows],
        )
    )
    rejected = [one for piece in pieces for one in piece.rejected]
    return Ready(rows, prepared, rejected, sum(piece.seconds for piece in pieces))


Submit = Callable[[list[Row]], Callable[[], Ready]]
"""Takes rows, and gives a function that waits for them."""


@contextmanager
def workers(prepare: Prepare, count: int) -> Iterator[Submit]:
    """Where rows are prepared: in `count` processes that end with this one, or with 0 in this one when they are waited for."""
    if not count:
        yield lambda rows: lambda: ready(prepare, rows)
        return
    context = get_context("spawn")  # this process has threads, which a fork would tear
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(prepare,))

    def submit(rows: list[Row]) -> Callable[[], Ready]:
        waiting: list[Future[Ready]] = []
        try:
            for start in range(0, len(rows), PIECE):
                waiting.append(pool.submit(_work, rows[start : start + PIECE]))
        except BrokenProcessPool:
            raise _died() from None
        return lambda: joined([_waited(one) for one in waiting])

    try:
        yield submit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _waited(piece: Future[Ready]) -> Ready:
    try:
        return piece.result()
    except BrokenProcessPool:
        raise _died() from None


def _died() -> InternalFault:
    return InternalFault(
        "an embedding process died, perhaps for want of memory; fewer of them (--embed-workers) take less"
    )


_prepare: Prepare | None = None


def _begin(prepare: Prepare) -> None:
    """A worker's own: interrupts are its parent's business, and its parent's end is its own."""
    global _prepare
    _prepare = prepare
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)  # a parent that was killed leaves its workers waiting for ever


def _work(rows: list[Row]) -> Ready:
    if _prepare is None:
        raise InternalFault("worker: it was not begun")
    return ready(_prepare, rows)
