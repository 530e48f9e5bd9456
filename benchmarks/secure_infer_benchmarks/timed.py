"""Queries about one head, asked in one way and timed one by one, and what their answers are worth beside plaintext's."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import Head, ModelSpec
from secure_infer_client import Client
from secure_infer_client.prediction import CallStats

Floats = NDArray[np.float64]
Answer = Floats | list[str]
"""Logits (B, K), or a label for each of B records."""


def by_client(client: Client, x: Floats) -> tuple[Answer, CallStats]:
    """The client's answer to rows x (B, d), in labels where it gets nothing else, and what the call cost."""
    found = client.decide(x) if client.label_only else client.predict(x)
    return found, client.last_call.stats


def in_plaintext(client: Client, x: Floats) -> tuple[Floats, None]:
    """The server's own logits (B, K) of rows x (B, d), which it reads; nobody says what such a call cost."""
    return client.evaluate_plaintext(x), None


class TimedQueries:
    """Every query about one head in one way. answer: asks with rows (B, d); its cost is None where nobody says it.

    call_ms: milliseconds of each query, from rows to answer. stats: what each cost, empty where nobody says it. errors: the
    largest error of a logit, of each query that was answered with logits. counted, agreed: records whose answers were
    compared, and those of them whose answer is plaintext's.
    """

    def __init__(self, head: Head, answer: Callable[[Floats], tuple[Answer, CallStats | None]]) -> None:
        self.head, self.answer = head, answer
        self.spec = ModelSpec.of("", head)  # without a name: it is here for what answers mean
        self.call_ms: list[float] = []
        self.stats: list[CallStats] = []
        self.errors: list[float] = []
        self.counted = self.agreed = 0

    def query(self, x: Floats) -> Answer:
        """One query of rows x (B, d), timed."""
        started = perf_counter()
        found, stats = self.answer(x)
        self.call_ms.append(1e3 * (perf_counter() - started))
        if stats is not None:
            self.stats.append(stats)
        return found

    def compare(self, found: Answer, exact: Floats, among: NDArray[np.bool_] | None = None) -> None:
        """An answer beside plaintext's logits (B, K). among: the records (B,) whose agreement counts, all by default."""
        if isinstance(found, np.ndarray):
            self.errors.append(float(np.abs(found - exact).max()))
        labels = found if isinstance(found, list) else self.spec.decide(found)
        same = np.array(labels) == np.array(self.spec.decide(exact))
        counted = same if among is None else same[among]
        self.counted += len(counted)
        self.agreed += int(counted.sum())

    @property
    def agreement(self) -> float | None:
        """The share of the records counted whose answer is plaintext's; None when there are none."""
        return self.agreed / self.counted if self.counted else None

    @property
    def max_logit_error(self) -> float | None:
        """Over all queries; None when all answers are labels."""
        return max(self.errors, default=None)
