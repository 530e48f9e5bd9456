"""Whether two samples differ, without a word about how they are distributed.

Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other" (1947): with the
normal approximation, its variance corrected for ties and half a unit for continuity. Holm, "A Simple Sequentially Rejective
Multiple Test Procedure" (1979) keeps the chance of any false alarm over all figures below one level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def ranks(values: Sequence[float]) -> tuple[list[float], int]:
    """(rank of each value from 1, ties sharing their mean; the sum of t^3 - t over groups of t ties).

    >>> ranks([3.0, 1.0, 3.0])
    ([2.5, 1.0, 2.5], 6)
    """
    _, group, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts - 1) / 2
    return [float(rank) for rank in mean[group]], int(sum(int(t) ** 3 - int(t) for t in counts))


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p-value that both come from one distribution; 1 where all values are the same.

    Raises ValueError when one is empty.

    >>> round(mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), 4)
    0.0122
    """
    n, m = len(a), len(b)
    if not n or not m:
        raise ValueError(f"both samples need values; got {n} and {m}")
    found, ties = ranks([*a, *b])
    larger = sum(found[:n]) - n * (n + 1) / 2
    larger = max(larger, n * m - larger)
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = (larger - n * m / 2 - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: below a level exactly where Holm's procedure rejects.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, most = [0.0] * len(p), 0.0
    for place, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        most = max(most, min(1.0, (len(p) - place) * p[at]))
        adjusted[at] = most
    return adjusted
