"""Requests under way while something happens to the processes that serve them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence

from server.mpc.processes import FEATURES, Deployment
from server.mpc.raw_client import Answer
from shared import unit_rows

ENDS = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
}
"""How a call may end when a process dies or stalls; anything else is a fault."""


class Load:
    """Threads that ask one model after the other until the block ends; every answer is checked, every failure kept."""

    def __init__(self, deployment: Deployment, models: Sequence[str], threads: int, seconds: float = 3.0) -> None:
        self._deployment, self._models, self._seconds = deployment, models, seconds
        self._client = deployment.client()
        self._ending = threading.Event()
        self.answered = 0
        self.failures: list[Answer] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(k,), daemon=True) for k in range(threads)]

    def _ask(self, number: int) -> None:
        turn = number
        while not self._ending.is_set():
            model, rows = self._models[turn % len(self._models)], (1, 2, 7)[turn % 3]
            turn += 1
            x = unit_rows(rows, FEATURES, secrets.randbelow(1 << 30))
            found = self._client.evaluate(model, x, self._seconds)
            if isinstance(found, dict):
                self.failures += found.values()
                time.sleep(0.02)
            elif self._deployment.right(self._client, model, x, found):
                self.answered += 1
            else:
                self.wrong.append(model)

    def __enter__(self) -> Load:
        for model in self._models:
            self._client.program(model)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(self._seconds + 10)

    def goes_on(self, seconds: float = 10.0, more: int = 10) -> None:
        """Wait until so many more requests are answered."""
        before, started = self.answered, time.monotonic()
        while self.answered < before + more:
            assert time.monotonic() - started < seconds, self._deployment.logs()
            time.sleep(0.05)

    def require_sound(self) -> None:
        """Every call ended in time, with a status that says what is the matter, and no answer was wrong."""
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self.wrong
        bad = [a for a in self.failures if a.status not in {*ENDS, "OK"} or a.seconds > self._seconds + 2]
        assert not bad, bad[:3]
        nameless = [a for a in self.failures if a.status in ("ABORTED", "FAILED_PRECONDITION") and not a.reason]
        assert not nameless, nameless[:3]
