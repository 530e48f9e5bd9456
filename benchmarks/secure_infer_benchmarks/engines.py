"""The engine alone, in several processes at once: what more of them give on this machine, with no server beside them.

Processors share caches, memory and at times the very core: twice the processes are not twice the answers. What a server's
workers gain is to be held against this.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType

import numpy as np

from secure_infer.ckks import planner
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import Link
from secure_infer.errors import InternalFault
from secure_infer.heads import Head
from secure_infer.heads.network import Network
from secure_infer_benchmarks.engine import Bench
from secure_infer_benchmarks.synthetic import inputs

QUERIES = 4  # encrypted beforehand, by each process


class Engines:
    """Processes that wait until they are asked; plan: the digest of what they evaluate, one offered for the head by default."""

    def __init__(self, head: Head, plan: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._started = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_evaluate, args=(theirs, head, plan), daemon=True)
            process.start()
            theirs.close()
            self._started.append((process, ours))
        self.error = max(self._received(connection) for _, connection in self._started)
        """The largest error of a logit, over all processes and their queries."""

    def __enter__(self) -> Engines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._started:
            connection.close()
            process.join()

    def rate(self, count: int, seconds: float) -> float:
        """Answers a second of so many of the processes at once."""
        asked = [connection for _, connection in self._started[:count]]
        for connection in asked:
            connection.send(seconds)
        return sum(self._received(connection) for connection in asked)

    @staticmethod
    def _received(connection: Connection) -> float:
        try:
            return float(connection.recv())
        except EOFError:
            raise InternalFault("a process that evaluates ended") from None


def _evaluate(connection: Connection, head: Head, plan: str) -> None:
    """The process: first its largest error, then for every number of seconds the answers a second in them."""
    network = Network.of(head.layers)
    wanted = planner.demand(network, head.contract)
    tried = planner.explore(network, head.contract, wanted, unit_costs(), Link.parse("loopback"))
    candidate = next(candidate for candidate in tried.candidates if candidate.plan.digest == plan)
    with Bench(head, candidate, ahead=False) as bench:
        x = inputs(head.features, QUERIES)
        queries = [bench.encrypted(row) for row in x]
        found = np.stack([bench.logits(bench.answer(query)[0]) for query in queries])
        connection.send(float(np.abs(found - head.evaluate(x)).max()))
        while True:
            try:
                seconds = connection.recv()
            except EOFError:
                return
            started, answered = perf_counter(), 0
            while (past := perf_counter() - started) < seconds or not answered:
                bench.answer(queries[answered % QUERIES])
                answered += 1
            connection.send(answered / past)
