"""Trouble with what lies outside the process, as a disk that is full: counted each time, logged once a minute."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic

QUIET_SECONDS = 60.0
"""Between two lines of one reason, however many calls meet it."""


class Trouble:
    """Safe to share between threads. reasons: all that there are; each is counted from 0 on."""

    def __init__(self, log: logging.Logger, *reasons: str, clock: Callable[[], float] = monotonic) -> None:
        self._log, self._clock = log, clock
        self._counts = dict.fromkeys(reasons, 0)
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each reason was met."""
        with self._lock:
            return dict(self._counts)

    def meet(self, reason: str, text: str) -> None:
        """It happened again; `text` is for the operator."""
        with self._lock:
            self._counts[reason] += 1
            now = self._clock()
            if now - self._told.get(reason, -QUIET_SECONDS) < QUIET_SECONDS:
                return
            self._told[reason] = now
        self._log.error("%s", text)
