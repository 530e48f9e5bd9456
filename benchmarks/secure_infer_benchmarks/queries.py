"""Queries to two parties, timed at the client from rows to answers, and what their answers are worth."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from secure_infer.errors import SecureInferError
from secure_infer.heads import Head, ModelSpec
from secure_infer.mpc.program import Program
from secure_infer_benchmarks.figures import shape
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.timed import Floats, TimedQueries, by_client
from secure_infer_client import Client


def spread(values: list[float]) -> dict[str, float]:
    """Median, 90% quantile and least, of milliseconds or what else."""
    return {"median": median(values), "p90": float(np.quantile(values, 0.9)), "min": min(values)}


SETTLE = 0.5
"""Seconds after the first queries, in which the parties' stores fill again."""


class Queries(TimedQueries):
    """Every query has as many rows of `rows` (B, d) as `records` says.

    plaintext_ms: milliseconds of the head on the same rows by numpy. Of agreement, records count whose margin exceeds twice
    the error bound.
    """

    def __init__(self, head: Head, rows: Floats, records: int, client: Client) -> None:
        super().__init__(head, partial(by_client, client))
        self.rows, self.records, self.client = rows, records, client
        self.plaintext_ms: list[float] = []

    @property
    def program(self) -> Program:
        found = self.client.plan
        assert isinstance(found, Program)
        return found

    def warm_up(self, times: int = 3) -> None:
        """Queries that are not counted: connections, weight masks and buffers are made by the first ones.

        Raises what `Client.predict` raises.
        """
        for _ in range(times):
            self.answer(self.rows[: self.records])

    def ask(self) -> None:
        """One query, and the same in plaintext."""
        asked = len(self.call_ms) * self.records
        x = self.rows[np.arange(asked, asked + self.records) % len(self.rows)]
        found = self.query(x)
        started = perf_counter()
        exact = self.head.evaluate(x)
        self.plaintext_ms.append(1e3 * (perf_counter() - started))
        self.compare(found, exact, self.spec.margins(exact) > 2 * self.program.error_bound)

    def report(self) -> dict[str, Any]:
        """The model's row; times in milliseconds, counts and bytes of one query."""
        program, last = self.program, self.stats[-1]
        return {
            "head": shape(self.head),
            "layers": list(self.spec.layers),
            "weights": str(program.weights),
            "answers": str(program.answers),
            "comparisons": str(program.comparisons) if _compares(self.spec, program) else None,
            "records": self.records,
            "queries": len(self.call_ms),
            "fraction_bits": program.fraction,
            "answer_fraction_bits": program.answer_fraction,
            "error_bound": program.error_bound,
            "failure_probability": program.failure_probability,
            "max_logit_error": self.max_logit_error,
            "records_sure": self.counted,
            "agreement_beyond_twice_the_bound": self.agreement,
            "client_ms": spread(self.call_ms),
            "plaintext_ms": spread(self.plaintext_ms),
            "ratio_to_plaintext": median(self.call_ms) / median(self.plaintext_ms),
            **{name: median(getattr(s, of) for s in self.stats) for name, of in _STAGES.items()},
            "rounds": last.link_rounds,
            **{name: getattr(last, name) for name in ("bytes_up", "bytes_down", "link_bytes", "correlation_bytes")},
            "retries": sum(s.retries for s in self.stats),
        }


def warmed_up(
    stack: ExitStack, parties: Parties, wanted: Iterable[tuple[str, Served, Floats, int]]
) -> tuple[dict[str, Queries], dict[str, str]]:
    """Queries by name, their clients open until the stack ends, and reasons why there are none.

    wanted: name, model, rows and records a query.
    """
    clients: dict[str, Client] = {}
    found: dict[str, Queries] = {}
    reasons: dict[str, str] = {}
    for name, served, rows, records in wanted:
        if served.name in parties.rejected:
            reasons[name] = parties.rejected[served.name]
            continue
        if served.name not in clients:
            clients[served.name] = stack.enter_context(parties.client(served.name))
        queries = Queries(served.head, rows, records, clients[served.name])
        try:
            queries.warm_up()
        except SecureInferError as problem:
            reasons[name] = str(problem)
        else:
            found[name] = queries
    sleep(SETTLE)
    return found, reasons


_STAGES = {
    "split_ms": "encrypt_ms",
    "join_ms": "decrypt_ms",
    "network_ms": "network_ms",
    "parties_ms": "server_ms",
    "waiting_ms": "wait_ms",
    "evaluating_ms": "server_evaluate_ms",
}


def _compares(spec: ModelSpec, program: Program) -> bool:
    return program.label_only or "relu" in spec.layers
