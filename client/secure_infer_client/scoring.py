"""How good answers are on labelled data: accuracy with intervals, per class and per subgroup, and what abstaining buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964


@dataclass(frozen=True)
class Rate:
    """hits of count, with the Wilson score interval at 95% (Wilson, 1927)."""

    hits: int
    count: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, right: NDArray[np.bool_]) -> Rate:
        hits, count = int(right.sum()), len(right)
        if not count:
            return cls(0, 0, math.nan, math.nan, math.nan)
        p, z2 = hits / count, Z95**2
        middle = (p + z2 / (2 * count)) / (1 + z2 / count)
        half = Z95 * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2)) / (1 + z2 / count)
        return cls(hits, count, p, max(0.0, middle - half), min(1.0, middle + half))

    def __str__(self) -> str:
        return f"{self.rate:6.1%} [{self.low:.1%}, {self.high:.1%}] of {self.count}"


def report(
    labels: Sequence[str], truth: Sequence[str], answers: Sequence[str], groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """Accuracy, macro-F1, per-class recall and precision, and accuracy per subgroup; all as JSON can hold it.

    Worked example, labels a and b: truth "a a b b", answers "a b b b": accuracy 3/4; recall of a 1/2, precision 1/1.
    """
    true, found = np.array(truth, dtype=object), np.array(answers, dtype=object)
    right = np.array([t == f for t, f in zip(truth, answers, strict=True)], dtype=bool)
    classes, f1 = {}, []
    for label in labels:
        recall, precision = Rate.of(right[true == label]), Rate.of(right[found == label])
        classes[label] = {"recall": asdict(recall), "precision": asdict(precision)}
        if recall.count:
            f1.append(2 * recall.hits / (recall.count + precision.count))
    named = {} if groups is None else {name: np.array(groups, dtype=object) == name for name in sorted(set(groups))}
    return {
        "accuracy": asdict(Rate.of(right)),
        "macro_f1": float(np.mean(f1)) if f1 else math.nan,
        "classes": classes,
        "groups": {name: asdict(Rate.of(right[mask])) for name, mask in named.items()},
    }


def abstention(right: NDArray[np.bool_], probabilities: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """What is left when answers below `threshold` go to a person: the share answered, and its accuracy."""
    kept = probabilities >= threshold
    return {"threshold": threshold, "answered": asdict(Rate.of(kept)), "accuracy": asdict(Rate.of(right[kept]))}
