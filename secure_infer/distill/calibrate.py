"""Calibration, all of it on validation rows: temperatures, and the confidence below which to abstain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer.distill.evaluate import Classes, Floats, fit_temperature, log_softmax, negative_log_likelihood

FOLDS = 5
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """`temperature`: what the head gets, one number or one a class.

    The likelihoods (nats a text) of both kinds are cross-validated: no text's temperatures were fitted on its category.
    """

    temperature: float | tuple[float, ...]
    scalar_likelihood: float
    per_class_likelihood: float


def calibrate(logits: Floats, classes: Classes, groups: NDArray[np.int64], seed: int) -> Calibration:
    """Temperatures for validation logits (B, K): one a class where that pays on rows not fitted on, else one for all.

    Per class always wins on the rows it is fitted on, so the two are compared by five-fold cross-validation, folds
    disjoint in `groups` (B,).
    """
    names = np.unique(groups)
    fold_of = dict(zip(np.random.default_rng(seed).permutation(names).tolist(), range(len(names)), strict=True))
    folds = np.array([fold_of[group] % FOLDS for group in groups.tolist()])
    scalar, per_class = 0.0, 0.0
    for fold in range(FOLDS):
        fit, check = folds != fold, folds == fold
        if not (fit.any() and check.any()):
            continue
        single = fit_temperature(logits[fit], classes[fit])
        many = np.array(fit_temperatures(logits[fit], classes[fit], single))
        share = check.mean()
        scalar += share * negative_log_likelihood(logits[check] / single, classes[check])
        per_class += share * negative_log_likelihood(logits[check] / many, classes[check])
    single = fit_temperature(logits, classes)
    better = fit_temperatures(logits, classes, single) if per_class < scalar else single
    return Calibration(better, round(float(scalar), 5), round(float(per_class), 5))


def fit_temperatures(logits: Floats, classes: Classes, start: float) -> tuple[float, ...]:
    """One temperature a class, minimising the negative log-likelihood of softmax(logits / temperatures), three digits.

    Convex in the inverse temperatures: damped Newton steps from `start`, none of them beyond a factor of two either way.
    """
    count, width = logits.shape
    inverse = np.full(width, 1 / start)
    hot = np.zeros_like(logits)
    hot[np.arange(count), classes] = 1.0
    value = negative_log_likelihood(logits * inverse, classes)
    for _ in range(_NEWTON_STEPS):
        p = np.exp(log_softmax(logits * inverse))
        weighted = p * logits
        gradient = ((p - hot) * logits).mean(axis=0)
        hessian = (np.diag((weighted * logits).sum(axis=0)) - weighted.T @ weighted) / count
        step = np.linalg.solve(hessian + 1e-6 * np.eye(width), gradient)
        for damping in 0.5 ** np.arange(20):
            tried = np.clip(inverse - damping * step, 0.5 / start, 2 / start)
            reached = negative_log_likelihood(logits * tried, classes)
            if reached < value:
                break
        else:
            break
        gain, inverse, value = value - reached, tried, reached
        if gain < 1e-9:
            break
    return tuple(float(f"{1 / entry:.3g}") for entry in inverse)


def confidence(logits: Floats, temperature: float | tuple[float, ...]) -> Floats:
    """The largest calibrated probability of each row, (B,)."""
    return np.asarray(np.exp(log_softmax(logits / np.array(temperature))).max(axis=1))


def abstention_threshold(confident: Floats, right: NDArray[np.bool_], target: float) -> float | None:
    """The least threshold, in steps of 0.005, from which on texts are accepted with accuracy `target`; None: there is none.

    confident, right: (B,) of validation rows. Zero when every row may be accepted.
    """
    for threshold in np.arange(0, 1, 0.005):
        accepted = confident >= threshold
        if not accepted.any():
            return None
        if right[accepted].mean() >= target:
            return float(round(threshold, 3))
    return None
