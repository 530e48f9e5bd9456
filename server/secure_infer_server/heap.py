"""Memory that was freed, back to the system.

glibc gives threads heaps of their own, and gives back by itself only what is free at the end of one. Messages of hundreds of
kilobytes come and go on many threads: what is free between two that stay remains the process's, and more of it for hours. So
threads share few heaps, large blocks are kept out of them, and once in half a minute the free pages within them are given back;
with 30 MB free, that takes milliseconds, on a thread that has nothing else to do.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from time import monotonic

SECONDS = 30.0
HEAPS = 2
LARGE = 128 << 10
"""Bytes of a block that is mapped by itself, and unmapped when it is freed. glibc begins with that, and raises it to the largest
that was freed: then ciphertexts and keys share heaps with what stays for hours."""

_OPTIONS = (("MALLOC_ARENA_MAX", -8, HEAPS), ("MALLOC_MMAP_THRESHOLD_", -3, LARGE))  # of glibc's <malloc.h>


def keep_small() -> None:
    """Have this process' threads share few heaps, and keep large blocks out of them; for its start, as heaps that are there stay.

    glibc's own variables in the environment say otherwise.
    """
    for variable, option, value in _OPTIONS:
        if variable not in os.environ:
            _of_glibc("mallopt")(option, value)


def _of_glibc(name: str) -> Callable[..., object]:
    """A function of glibc's; where the C library has none, nothing is done."""
    try:
        found: Callable[..., object] = getattr(ctypes.CDLL(None), name)  # lets other threads run
    except (AttributeError, OSError, TypeError):
        return lambda *_: None
    return found


class Heap:
    """This process's. `tend` is to be called often, and does something every `seconds`."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds, self._trim = seconds, _of_glibc("malloc_trim")
        self._next = monotonic() + seconds

    def tend(self) -> bool:
        """Give back what is free, when it is time; whether it was."""
        if monotonic() < self._next:
            return False
        self._trim(0)
        self._next = monotonic() + self._seconds
        return True
