"""One head asked in one way, again and again."""

from __future__ import annotations

from functools import partial
from typing import Any

from secure_infer.heads import Head
from secure_infer_benchmarks.figures import figure, ratio
from secure_infer_benchmarks.timed import Floats, TimedQueries, by_client, in_plaintext
from secure_infer_client import Client

WARM_UP = 3
STAGES = ("encrypt_ms", "network_ms", "server_ms", "server_load_ms", "server_evaluate_ms", "wait_ms", "decrypt_ms")


class Asked(TimedQueries):
    """One record a query, of rows (B, d) in turn. key_bytes: those of the queries that warm up."""

    def __init__(self, head: Head, rows: Floats, client: Client, plaintext: bool = False) -> None:
        super().__init__(head, partial(in_plaintext, client) if plaintext else partial(by_client, client))
        self.rows, self.client, self.plaintext = rows, client, plaintext
        self.key_bytes = 0

    def warm_up(self) -> None:
        """Queries that are not counted: the first one uploads keys, the others fill stores."""
        for row in self.rows[:WARM_UP]:
            _, stats = self.answer(row[None])
            self.key_bytes += 0 if stats is None else stats.key_bytes

    def ask(self, number: int) -> None:
        """The row of that number, counted on beyond the last."""
        x = self.rows[[number % len(self.rows)]]
        self.compare(self.query(x), self.head.evaluate(x))

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
            "agreement": self.agreement,
            "max_logit_error": self.max_logit_error,
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
