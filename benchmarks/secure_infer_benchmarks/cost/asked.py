"""One head asked in one way, again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import Head
from secure_infer_benchmarks.figures import figure, ratio
from secure_infer_client import Client
from secure_infer_client.prediction import CallStats

Floats = NDArray[np.float64]
WARM_UP = 3
STAGES = ("encrypt_ms", "network_ms", "server_ms", "server_load_ms", "server_evaluate_ms", "wait_ms", "decrypt_ms")


@dataclass
class Asked:
    """One head asked in one way: every query's milliseconds, cost and error."""

    head: Head
    rows: Floats
    client: Client
    plaintext: bool = False
    call_ms: list[float] = field(default_factory=list)
    stats: list[CallStats] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    agreed: int = 0
    key_bytes: int = 0

    def warm_up(self) -> None:
        """Queries that are not counted: the first one uploads keys, the others fill stores."""
        for row in self.rows[:WARM_UP]:
            self._answer(row[None])
            if not self.plaintext:
                self.key_bytes += self.client.last_call.stats.key_bytes

    def ask(self, number: int) -> None:
        """The row of that number, counted on beyond the last."""
        x = self.rows[[number % len(self.rows)]]
        started = perf_counter()
        found = self._answer(x)
        self.call_ms.append(1e3 * (perf_counter() - started))
        if not self.plaintext:
            self.stats.append(self.client.last_call.stats)
        expected = self.head.evaluate(x)
        if isinstance(found, np.ndarray):
            self.errors.append(float(np.abs(found - expected).max()))
        spec = self.client.spec
        self.agreed += (found if isinstance(found, list) else spec.decide(found)) == spec.decide(expected)

    def _answer(self, x: Floats) -> Floats | list[str]:
        if self.plaintext:
            return self.client.evaluate_plaintext(x)
        return self.client.decide(x) if self.client.label_only else self.client.predict(x)

    def figures(self, unit: list[float]) -> dict[str, Any]:
        """unit: milliseconds of the plaintext call of the same rounds."""
        stages = {name: [getattr(one, name) for one in self.stats] for name in STAGES}
        return {
            "ratio": ratio(self.call_ms, unit),
            "call_ms": figure(self.call_ms),
            **{name: figure(values) for name, values in stages.items() if any(values)},
        }

    def counts(self) -> dict[str, Any]:
        """What does not vary, and what answers are worth."""
        found: dict[str, Any] = {
            "queries": len(self.call_ms),
            "agreement": self.agreed / len(self.call_ms),
            "max_logit_error": max(self.errors, default=None),
        }
        if not self.stats:
            return found
        last = self.stats[-1]
        return found | {
            "error_bound": last.error_bound,
            "key_bytes": self.key_bytes,
            **{name: getattr(last, name) for name in ("bytes_up", "bytes_down", "link_bytes", "correlation_bytes")},
            "rounds": last.link_rounds,
            "retries": sum(one.retries for one in self.stats),
            "blinds_made_during_requests": sum(one.blinds_inline for one in self.stats),
        }
