"""A run: client processes that send their part of the inputs, the hostile leader, and honest clients beside them."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import queue
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from tqdm import tqdm

from secure_infer_benchmarks.stress import hostile_honest, hostile_leader
from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_honest import Tally
from secure_infer_benchmarks.stress.hostile_inputs import FOLLOWED, PARSED, Input, build, surface_of
from secure_infer_benchmarks.stress.hostile_layout import Served
from secure_infer_benchmarks.stress.hostile_send import Sender

CLIENTS = 2
AT_ONCE = 48  # inputs under way in one client
MOST_FINDINGS = 200  # told by one process; the rest is counted
_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Finding:
    """An input that was not taken as it should be."""

    index: int
    surface: str
    problem: str
    made: Input


@dataclass
class Found:
    """What came of a run. outcomes: by surface, how many inputs ended how. dead: clients that died, and at what."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    honest: dict[str, Tally] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(sum(counts.values()) for counts in self.outcomes.values())


def run(
    served: Served,
    corpus: Corpus,
    seed: int,
    indices: Sequence[int],
    peer: socket.socket,
    halfway: Callable[[], object],
) -> Found:
    """Send those inputs. peer: where `loose-party1` looks for its leader. halfway: called when half of them were sent."""
    context = multiprocessing.get_context("spawn")
    told, counts, stop = context.Queue(), context.Queue(), context.Event()
    found, started = Found(), time.monotonic()
    honest = context.Process(target=hostile_honest.work, args=(served, stop, told, seed), daemon=True)
    honest.start()
    at = [context.Value("q", -1) for _ in range(CLIENTS)]
    clients = [
        context.Process(target=_client, args=(served, corpus, seed, indices[n::CLIENTS], counts, at[n]), daemon=True)
        for n in range(CLIENTS)
    ]
    leader = Thread(target=_lead, args=(peer, corpus, seed, indices, counts), daemon=True)
    workers: list[Any] = [*clients, leader]
    for worker in workers:
        worker.start()
    _collect(found, counts, workers, len(indices), halfway)
    for number, client in enumerate(clients):
        client.join(30)
        if client.exitcode != 0:
            found.dead.append(
                f"client {number} ended with {client.exitcode}, its last parser's input was {at[number].value}"
            )
    found.seconds = time.monotonic() - started
    stop.set()
    try:
        found.honest = told.get(timeout=180)
    except queue.Empty:
        found.dead.append("the honest clients did not end")
    honest.join(30)
    return found


def _collect(found: Found, counts: Any, workers: Sequence[Any], total: int, halfway: Callable[[], object]) -> None:
    """Until all workers have ended and said what they have to say."""
    passed = False
    with tqdm(total=total, unit=" inputs", disable=None, leave=False) as bar:
        while True:
            running = any(worker.is_alive() for worker in workers)
            try:
                outcomes, findings, more = counts.get(timeout=_TELL_SECONDS)
            except queue.Empty:
                if not running:
                    return
                continue
            for (surface, outcome), count in outcomes.items():
                found.outcomes[surface][outcome] += count
            found.findings += findings
            found.more += more
            bar.update(sum(outcomes.values()))
            if not passed and found.inputs >= total // 2:
                halfway()
                passed = True


class _Teller:
    """Counts outcomes, and tells them now and then."""

    def __init__(self, counts: Any) -> None:
        self._counts, self._outcomes = counts, Counter[tuple[str, str]]()
        self._findings: list[Finding] = []
        self._told = self._more = 0
        self._last = time.monotonic()

    def add(self, index: int, made: Input, outcome: str, problem: str) -> None:
        self._outcomes[made.surface, outcome] += 1
        if problem and self._told < MOST_FINDINGS:
            self._told += 1
            self._findings.append(Finding(index, made.surface, problem, made))
        elif problem:
            self._more += 1
        if time.monotonic() > self._last + _TELL_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._counts.put((self._outcomes, self._findings, self._more))
        self._outcomes, self._findings, self._more = Counter(), [], 0
        self._last = time.monotonic()


def _client(served: Served, corpus: Corpus, seed: int, indices: Sequence[int], counts: Any, at: Any) -> None:
    logging.disable(logging.CRITICAL)  # parsers and gRPC say a lot of such inputs
    asyncio.run(_send_all(served, corpus, seed, indices, counts, at))


async def _send_all(served: Served, corpus: Corpus, seed: int, indices: Sequence[int], counts: Any, at: Any) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    sender, teller = Sender(served, corpus.material.canary), _Teller(counts)
    waiting = iter([index for index in indices if surface_of(seed, index) != FOLLOWED])

    async def work() -> None:
        for index in waiting:
            if surface_of(seed, index).startswith(PARSED):
                at.value = index
            made = build(corpus, seed, index)
            teller.add(index, made, *await sender.send(made))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    teller.flush()
    await sender.close()


def _lead(peer: socket.socket, corpus: Corpus, seed: int, indices: Sequence[int], counts: Any) -> None:
    teller = _Teller(counts)

    def inputs() -> Iterator[tuple[int, Input]]:
        for index in indices:
            if surface_of(seed, index) == FOLLOWED:
                yield index, build(corpus, seed, index)

    hostile_leader.lead(peer, inputs(), teller.add, corpus.material.canary)
    teller.flush()
