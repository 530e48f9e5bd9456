"""Queries to two parties, timed at the client from rows to answers, and what their answers are worth."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from secure_infer.errors import SecureInferError
from secure_infer.heads import ModelSpec
from secure_infer.mpc.program import Program
from secure_infer_benchmarks.figures import shape
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.peers import Floats
from secure_infer_client import Client
from secure_infer_client.prediction import CallStats


def spread(values: list[float]) -> dict[str, float]:
    """Median, 90% quantile and least, of milliseconds or what else."""
    return {"median": median(values), "p90": float(np.quantile(values, 0.9)), "min": min(values)}


SETTLE = 0.5
"""Seconds after the first queries, in which the parties' stores fill again."""


@dataclass
class Queries:
    """Every query of one model with as many rows of `rows` (B, d) as `records` says, and what came of it.

    client_ms, plaintext_ms: milliseconds of each query, and of the head on the same rows by numpy. errors: the largest of
    each query's logits. sure, agreed: records whose margin exceeds twice the error bound, and those of them whose answer
    is plaintext's.
    """

    served: Served
    rows: Floats
    records: int
    client: Client
    client_ms: list[float] = field(default_factory=list)
    plaintext_ms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    stats: list[CallStats] = field(default_factory=list)
    asked: int = 0
    sure: int = 0
    agreed: int = 0

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
            self._answer(self.rows[: self.records])

    def ask(self) -> None:
        """One query, and the same in plaintext."""
        x = self.rows[np.arange(self.asked, self.asked + self.records) % len(self.rows)]
        started = perf_counter()
        found = self._answer(x)
        answered = perf_counter()
        logits = self.served.head.evaluate(x)
        self.client_ms.append(1e3 * (answered - started))
        self.plaintext_ms.append(1e3 * (perf_counter() - answered))
        self.stats.append(self.client.last_call.stats)
        self._check(found, logits)

    def _answer(self, x: Floats) -> Floats | list[str]:
        return self.client.decide(x) if self.program.label_only else self.client.predict(x)

    def _check(self, found: Floats | list[str], logits: Floats) -> None:
        spec = self.client.spec
        if isinstance(found, np.ndarray):
            self.errors.append(float(np.abs(found - logits).max()))
        labels = found if isinstance(found, list) else spec.decide(found)
        sure = spec.margins(logits) > 2 * self.program.error_bound
        same = np.array(labels) == np.array(spec.decide(logits))
        self.asked += len(logits)
        self.sure += int(sure.sum())
        self.agreed += int((sure & same).sum())

    def report(self) -> dict[str, Any]:
        """The model's row; times in milliseconds, counts and bytes of one query."""
        program, last = self.program, self.stats[-1]
        return {
            "head": shape(self.served.head),
            "layers": list(self.client.spec.layers),
            "weights": str(program.weights),
            "answers": str(program.answers),
            "comparisons": str(program.comparisons) if _compares(self.client.spec, program) else None,
            "records": self.records,
            "queries": len(self.client_ms),
            "fraction_bits": program.fraction,
            "answer_fraction_bits": program.answer_fraction,
            "error_bound": program.error_bound,
            "failure_probability": program.failure_probability,
            "max_logit_error": max(self.errors) if self.errors else None,
            "records_sure": self.sure,
            "agreement_beyond_twice_the_bound": self.agreed / self.sure if self.sure else None,
            "client_ms": spread(self.client_ms),
            "plaintext_ms": spread(self.plaintext_ms),
            "ratio_to_plaintext": median(self.client_ms) / median(self.plaintext_ms),
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
        queries = Queries(served, rows, records, clients[served.name])
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
