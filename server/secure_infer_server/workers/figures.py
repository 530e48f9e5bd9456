"""How workers are, for those who look on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerFigures:
    """alive, busy: workers now; those that are threads are counted, too. waiting: requests that none has begun. died: since the
    start, workers that ended by themselves; replaced: that had grown or done enough. resident: bytes of all, after each one's
    last job."""

    alive: int
    busy: int
    waiting: int
    died: int
    replaced: int
    resident: int
