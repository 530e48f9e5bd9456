"""Memory, file descriptors and threads of each server process, sampled; and whether they grow.

Flat: after a warm-up, in which bounded caches fill, resident memory grows by less than a tenth of its mean in an hour, or by no
more than twice the standard error of the slope, by least squares. Not told of lives that leave less than four minutes for it.

Memory moves in steps, and what it is in one second it mostly is in the next: samples are not independent, and the plain standard
error would call any two steps growth. It is made larger as for a first-order autoregression: n samples whose residuals have
correlation r from one to the next count as n (1 - r) / (1 + r) of them (Santer et al., J. Geophys. Res. 105, 2000). The residuals
are those of a parabola, so that growth which slows down is not taken for noise.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

import numpy as np

from secure_infer_benchmarks.stress.soak_servers import Fleet

INTERVAL = 1.0
LEAST_SAMPLES = 30
WARM_UP = 240.0  # seconds of a life, in which caches fill: the answers kept, 16 MiB here, and ids at the parties
LEAST_SECONDS = 240.0  # after them, of a life that says whether memory grows
LIMIT = 0.1  # of the mean, in an hour
_PAGE = os.sysconf("SC_PAGE_SIZE")

Sample = tuple[float, int, int, int]
"""Seconds since the start, bytes resident, file descriptors, threads."""


class Watch:
    """A thread that samples."""

    def __init__(self, fleet: Fleet, interval: float = INTERVAL) -> None:
        self._fleet, self._interval = fleet, interval
        self.samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._began = monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._interval):
            now = monotonic() - self._began
            for managed in self._fleet.managed.values():
                if managed.pid:
                    self._take(managed.name, managed.pid, now)
                    for child in managed.children():
                        name = "blinding" if child == managed.blinding else "child"
                        self._take(f"{managed.name}, {name}", child, now)

    def _take(self, name: str, pid: int, now: float) -> None:
        process = Path(f"/proc/{pid}")
        try:
            resident = int((process / "statm").read_text().split()[1]) * _PAGE
            files, threads = len(os.listdir(process / "fd")), len(os.listdir(process / "task"))  # noqa: PTH208 (counts)
        except (OSError, IndexError):
            return  # it just ended
        if resident:
            self.samples[name, pid].append((now, resident, files, threads))

    def report(self) -> list[dict[str, Any]]:
        """Each process that was there for long enough, by name; the last third of the run has no faults."""
        return [
            _grown(name, pid, samples)
            for (name, pid), samples in sorted(self.samples.items())
            if len(samples) >= LEAST_SAMPLES
        ]


def _grown(name: str, pid: int, samples: list[Sample]) -> dict[str, Any]:
    warm = [sample for sample in samples if sample[0] - samples[0][0] >= WARM_UP]
    told = bool(warm) and warm[-1][0] - warm[0][0] >= LEAST_SECONDS
    late = np.array(warm if told else samples[len(samples) // 2 :], dtype=np.float64)
    hours, resident = late[:, 0] / 3600, late[:, 1]
    slope, error = line(hours, resident)
    mean = float(resident.mean())
    return {
        "process": name,
        "pid": pid,
        "seconds": samples[-1][0] - samples[0][0],
        "resident_mib": {"first": samples[0][1] / 2**20, "mean_late": mean / 2**20, "last": samples[-1][1] / 2**20},
        "growth_an_hour": slope / mean,
        "standard_error": error / mean,
        "flat": (slope < LIMIT * mean or slope <= 2 * error) if told else None,
        "files": {"first": samples[0][2], "most": max(s[2] for s in samples), "last": samples[-1][2]},
        "threads": {"first": samples[0][3], "most": max(s[3] for s in samples), "last": samples[-1][3]},
        "curve": [[round(s[0]), round(s[1] / 2**20, 1)] for s in samples[:: max(1, len(samples) // 60)]],
    }


def line(x: np.ndarray[Any, np.dtype[np.float64]], y: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Slope of the least-squares line, and its standard error, the residuals' correlation from one to the next considered."""
    centred = x - fmean(x)
    spread = float(centred @ centred)
    if len(x) < 4 or not spread:
        return 0.0, float("inf")
    slope = float(centred @ y) / spread
    residuals = y - np.polynomial.Polynomial.fit(x, y, 2)(x)
    squares = float(residuals @ residuals)
    correlation = max(0.0, float(residuals[1:] @ residuals[:-1]) / squares) if squares else 0.0
    independent = max(5.0, len(x) * (1 - correlation) / (1 + correlation))
    return slope, float(np.sqrt(squares / (independent - 3) / spread))
