"""Memory that was freed, back to the system.

glibc gives threads heaps of their own, and gives back by itself only what is free at the end of one. Messages of hundreds of
kilobytes come and go on many threads: what is free between two that stay remains the process's, and more of it for hours. Once in
half a minute, the pages of it are given back; with 30 MB free, that takes milliseconds, on a thread that has nothing else to do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from time import monotonic

SECONDS = 30.0


def _trimmer() -> Callable[[int], object]:
    """glibc's `malloc_trim`; where the C library has none, nothing is done."""
    try:
        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim  # lets other threads run
    except (AttributeError, OSError, TypeError):
        return lambda _: None
    return found


class Heap:
    """This process's. `tend` is to be called often, and does something every `seconds`."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds, self._trim = seconds, _trimmer()
        self._next = monotonic() + seconds

    def tend(self) -> bool:
        """Give back what is free, when it is time; whether it was."""
        if monotonic() < self._next:
            return False
        self._trim(0)
        self._next = monotonic() + self._seconds
        return True
