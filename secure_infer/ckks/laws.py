"""How the time of an operation grows with the ring: laws that fill in between a few measurements.

A law is a sum of terms of N and k, the data primes left, each with a weight >= 0. The terms are what SEAL's algorithms
count; T = N log2(N) stands for one number-theoretic transform:

    PASS         N k, 1                   one pass over the residues: loading, adding, products
    TRANSFORMS   T k, 1                   a rescale: in each half one transform back and k - 1 forth
    KEY_SWITCH   T (k+1)(k+2), 1          k transforms back, k² forth, 2(k+1) to drop the special prime
    ENCRYPTION   T k, N, 1                samples drawn once, transformed for each prime
    BLINDING     T (k + [k > 1]), N, 1    likewise, with the special prime where there is one
    ELEMENT      1                        what is counted by the element: the same in every ring

Weights are found by least squares of the relative error, so that a small ring counts as much as a large one. Every term
grows with N and k, so a law does too, and is positive wherever its measurements are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Law = tuple[Callable[[int, int], float], ...]


def _transforms(degree: int, primes: int) -> float:
    return degree * math.log2(degree) * primes


def _one(degree: int, primes: int) -> float:
    return 1.0


PASS: Law = (lambda degree, primes: degree * primes, _one)
TRANSFORMS: Law = (_transforms, _one)
KEY_SWITCH: Law = (lambda degree, primes: _transforms(degree, (primes + 1) * (primes + 2)), _one)
ENCRYPTION: Law = (_transforms, lambda degree, primes: degree, _one)
BLINDING: Law = (lambda degree, primes: _transforms(degree, primes + (primes > 1)), *ENCRYPTION[1:])
ELEMENT: Law = (_one,)


def value(law: Law, weights: Sequence[float], degree: int, primes: int) -> float:
    """Seconds by the law at ring degree N with that many data primes left."""
    return sum(weight * term(degree, primes) for weight, term in zip(weights, law, strict=True))


def fit(law: Law, points: Sequence[tuple[int, int, float]]) -> list[float]:
    """The weights, one a term, for measurements (N, primes, seconds > 0), at least one.

    Every set of terms is tried (three terms have seven); of those without a negative weight the best wins. With fewer
    measurements than terms, the first terms of a law go first.
    """
    relative = np.array([[term(n, k) / seconds for term in law] for n, k, seconds in points])
    best, least = [0.0] * len(law), math.inf
    for size in range(1, min(relative.shape) + 1):
        for chosen in itertools.combinations(range(len(law)), size):
            columns = relative[:, chosen]
            largest = columns.max(axis=0)
            weights = np.linalg.lstsq(columns / largest, np.ones(len(points)), rcond=None)[0] / largest
            error = float(np.square(columns @ weights - 1).sum())
            if weights.min() >= 0 and error < least - 1e-12:
                found = dict(zip(chosen, weights.tolist(), strict=True))
                best, least = [found.get(term, 0.0) for term in range(len(law))], error
    return best
