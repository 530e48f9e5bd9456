"""What answers are worth, from logits: right, like plaintext's, and as sure as they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import ModelSpec
from secure_infer_client.scoring import report

Floats = NDArray[np.float64]
BINS = 10
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> list[dict[str, Any]]:
    """The reliability curve: answers by the probability that came with them, in bins of equal width; empty bins are left out.

    confidence, right: (B,). An entry: the bin's edges (the last one has both of its own), its `texts`, their mean `confidence`
    and the share of them that are right, `accuracy`. Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities
    Using Bayesian Binning" (AAAI 2015).
    """
    place = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    texts = np.bincount(place, minlength=bins)
    said, was = np.bincount(place, confidence, bins), np.bincount(place, right, bins)
    return [
        {
            "from": i / bins,
            "to": (i + 1) / bins,
            "texts": int(texts[i]),
            "confidence": float(said[i] / texts[i]),
            "accuracy": float(was[i] / texts[i]),
        }
        for i in np.flatnonzero(texts)
    ]


def calibration_error(curve: list[dict[str, Any]]) -> float:
    """The expected calibration error: mean over texts of |accuracy - confidence| of their bin.

    >>> calibration_error([{"texts": 3, "confidence": 0.6, "accuracy": 0.5}, {"texts": 1, "confidence": 0.9, "accuracy": 0.5}])
    0.175
    """
    total = sum(one["texts"] for one in curve)
    return float(sum(one["texts"] * abs(one["accuracy"] - one["confidence"]) for one in curve) / total)


def classes(scored: dict[str, Any]) -> list[dict[str, Any]]:
    """Every class of a report by `scoring.report`, with F1; a share of nothing is 0, as scikit-learn has it."""
    found = []
    for label, rates in scored["classes"].items():
        recall, precision = rates["recall"], rates["precision"]
        both = recall["count"] + precision["count"]
        found.append(
            {
                "label": label,
                "texts": recall["count"],
                "precision": precision["rate"] if precision["count"] else 0.0,
                "recall": recall["rate"] if recall["count"] else 0.0,
                "f1": 2 * recall["hits"] / both if both else 0.0,
            }
        )
    return found


def compared(spec: ModelSpec, truth: Sequence[str], logits: Floats, plain: Floats, bound: float) -> dict[str, Any]:
    """The figures of a row: answers under encryption, and plaintext's for the same rows.

    logits, plain: (B, K). truth: B labels of the model. bound: stated on each logit's error. Intervals are Wilson's at 95%.
    Macro-F1 is over the classes that occur in truth.
    """
    answers, expected = spec.decide(logits), spec.decide(plain)
    ours, theirs = report(spec.labels, truth, answers), report(spec.labels, truth, expected)
    curve, plain_curve = _curve(spec, truth, answers, logits), _curve(spec, truth, expected, plain)
    same, sure = np.array(answers) == np.array(expected), spec.margins(plain) > 2 * bound
    errors = np.abs(logits - plain).ravel()
    return {
        "counts": {
            "texts": len(truth),
            "accuracy": ours["accuracy"]["rate"],
            "accuracy_low": ours["accuracy"]["low"],
            "accuracy_high": ours["accuracy"]["high"],
            "plaintext_accuracy": theirs["accuracy"]["rate"],
            "macro_f1": ours["macro_f1"],
            "plaintext_macro_f1": theirs["macro_f1"],
            "agreement": float(same.mean()),
            "answers_changed": int((~same).sum()),
            "texts_beyond_twice_the_bound": int(sure.sum()),
            "agreement_beyond_twice_the_bound": float(same[sure].mean()) if sure.any() else None,
            "logits": len(errors),
            "max_logit_error": float(errors.max()),
            "error_bound": bound,
            "calibration_error": calibration_error(curve),
            "plaintext_calibration_error": calibration_error(plain_curve),
        },
        "logit_error_quantiles": {f"{q:g}": float(np.quantile(errors, q)) for q in QUANTILES},
        "reliability": curve,
        "plaintext_reliability": plain_curve,
        "chapters": [
            one | {"plaintext_f1": other["f1"]} for one, other in zip(classes(ours), classes(theirs), strict=True)
        ],
    }


def _curve(spec: ModelSpec, truth: Sequence[str], answers: Sequence[str], logits: Floats) -> list[dict[str, Any]]:
    """By the probability that clients show beside the answer."""
    return reliability(spec.probabilities(logits).max(axis=1), np.array(answers) == np.array(truth))
