"""Calls a second of callers that ask again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter


def rate(callers: Sequence[Callable[[], object]], seconds: float) -> tuple[float, list[float]]:
    """Calls a second of as many threads, and milliseconds of each call. Each asks once at least, however late it begins."""
    times: list[float] = []
    started = perf_counter()

    def ask(once: Callable[[], object]) -> None:
        begun = perf_counter()
        while True:
            once()
            ended = perf_counter()
            times.append(1e3 * (ended - begun))
            if ended - started >= seconds:
                return
            begun = ended

    threads = [threading.Thread(target=ask, args=(once,)) for once in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / (perf_counter() - started), times
