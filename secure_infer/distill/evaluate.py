"""How good a head is: accuracy, macro-F1, calibration. scikit-learn is imported when a figure needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Fractions, except `negative_log_likelihood` (nats a text); `calibration_error` over 15 bins of confidence."""

    rows: int
    accuracy: float
    macro_f1: float
    negative_log_likelihood: float
    calibration_error: float

    def facts(self) -> dict[str, float]:
        """The figures by name, rounded to five decimals."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def scores(logits: Floats, classes: Classes, temperature: float | Sequence[float]) -> Scores:
    """Scores of logits (B, K) against classes (B,), with probabilities softmax(logits / temperature).

    temperature: one, or one a class. The answer is the largest logit, whatever the temperatures.
    """
    from sklearn.metrics import f1_score

    predicted = logits.argmax(axis=1)
    return Scores(
        rows=len(classes),
        accuracy=float((predicted == classes).mean()),
        macro_f1=float(f1_score(classes, predicted, average="macro")),
        negative_log_likelihood=negative_log_likelihood(logits / np.array(temperature), classes),
        calibration_error=calibration_error(logits, classes, temperature),
    )


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log of softmax, float64 (B, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def negative_log_likelihood(logits: Floats, classes: Classes) -> float:
    """Mean of -log softmax(logits)[class], in nats."""
    return float(-log_softmax(logits)[np.arange(len(classes)), classes].mean())


def fit_temperature(logits: Floats, classes: Classes) -> float:
    """The temperature that minimises the negative log-likelihood (Guo et al., ICML 2017, section 4.2), to three digits.

    The likelihood is unimodal in 1/temperature: golden-section search over [1/20, 20].
    """
    low, high, ratio = math.log(1 / 20), math.log(20), (math.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if negative_log_likelihood(logits * math.exp(left), classes) < negative_log_likelihood(
            logits * math.exp(right), classes
        ):
            high = right
        else:
            low = left
    return float(f"{math.exp(-(low + high) / 2):.3g}")


def calibration_error(
    logits: Floats, classes: Classes, temperature: float | Sequence[float] = 1.0, bins: int = 15
) -> float:
    """Expected calibration error: mean over texts of |accuracy - confidence| of the bin their confidence falls in.

    Confidence is the largest probability, which is what clients show beside the answer.
    """
    confidence = np.exp(log_softmax(logits / np.array(temperature))).max(axis=1)
    right = (logits.argmax(axis=1) == classes).astype(np.float64)
    bucket = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.abs(np.bincount(bucket, right, bins) - np.bincount(bucket, confidence, bins))
    return float(gaps.sum() / len(classes))


def by_class(logits: Floats, classes: Classes, labels: Sequence[str]) -> list[dict[str, float | str]]:
    """One entry a class: its rows, the share of them found (recall), and the share of answers with it that are right."""
    predicted = logits.argmax(axis=1)
    entries: list[dict[str, float | str]] = []
    for index, label in enumerate(labels):
        hits = int(((predicted == index) & (classes == index)).sum())
        rows, answers = int((classes == index).sum()), int((predicted == index).sum())
        entries.append(
            {
                "label": label,
                "rows": rows,
                "accuracy": round(hits / max(rows, 1), 5),
                "precision": round(hits / max(answers, 1), 5),
            }
        )
    return entries
