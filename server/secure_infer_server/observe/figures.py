"""Counts and histograms of calls, kept in memory and read when they are asked for.

Series are few, whoever calls: methods, stages, kinds of plans and reasons of errors are the program's own, and models are those
that are served.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from secure_infer_server.observe.calls import Call, Context

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
"""Seconds: a linear head takes less than a millisecond, a batch of many records a minute."""

TOTAL, REFUSED = "total", "refused"
"""Stages of a whole call: one that was answered, and one that ended in an error."""


class Histogram:
    """Not safe to share between threads."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def copy(self) -> Histogram:
        made = Histogram()
        made.counts, made.sum = self.counts.copy(), self.sum
        return made


@dataclass
class Series:
    """Of one method, model and kind of plan. model, kind: empty where a call has none."""

    stages: dict[str, Histogram] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    records: int = 0
    blinds_ready: int = 0
    blinds_inline: int = 0

    def add(self, call: Call) -> None:
        self.outcomes[call.outcome] += 1
        self.bytes_in += call.bytes_in
        self.bytes_out += call.bytes_out
        self.records += call.records
        self.blinds_ready += call.blinds_ready
        self.blinds_inline += call.blinds_inline
        whole = TOTAL if call.answered else REFUSED
        stages = self.stages
        for name, seconds in (*call.stages.items(), (whole, call.seconds)):
            if name not in stages:
                stages[name] = Histogram()
            stages[name].add(seconds)

    def copy(self) -> Series:
        stages = {name: histogram.copy() for name, histogram in self.stages.items()}
        rest = (self.bytes_in, self.bytes_out, self.records, self.blinds_ready, self.blinds_inline)
        return Series(stages, Counter(self.outcomes), *rest)


Name = tuple[str, str, str]
"""Method, model, kind of plan."""


class Figures:
    """An `Observer`. Safe to share between threads."""

    def __init__(self) -> None:
        self._series: dict[Name, Series] = {}
        self._lock = threading.Lock()

    def begin(self, call: Call, context: Context) -> None:
        """Nothing is counted yet."""

    def end(self, call: Call) -> None:
        name = (call.method, call.model, call.kind)
        with self._lock:
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = Series()
            series.add(call)

    def series(self) -> dict[Name, Series]:
        """A copy."""
        with self._lock:
            return {name: series.copy() for name, series in self._series.items()}
