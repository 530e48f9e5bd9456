"""Two shares of answers joined: logits, or which labels hold, and which of them can be right.

A truncation that failed puts a logit far out of the range that the program states; a party that deviates can do the same.
Worked example, three classes, label only: shares (5, 1, 9) and (p - 5, 3, 7) mod p join to (0, 4, 16): the first class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.mpc.correlations import MOD, PRIME
from secure_infer.mpc.program import Comparisons, Largest, Positive, Program
from secure_infer.mpc.ring import Words, decode
from secure_infer.mpc.sharing import join

Answers = NDArray[Any]
"""Logits (B, K) float64, or which labels hold (B, K) bool."""
Bits = NDArray[np.bool_]


def read(program: Program, first: Words, second: Words) -> tuple[Answers, Bits]:
    """The answers, and whether each record's can be right (B,).

    first, second: shares (B, K), in any order. A logit can be right within the range and the error bound; of classes,
    exactly one is the largest; other shares are elements of their field. CrypTen's argmax shares one and zeros as words.
    """
    last = program.steps[-1]
    if isinstance(last, Largest) and program.comparisons is Comparisons.CRYPTEN:
        chosen = join(first, second)
        return chosen == 1, np.asarray((chosen <= 1).all(axis=1) & (chosen.sum(axis=1) == 1))
    if isinstance(last, Largest):
        largest = MOD.join(first, second) == 0
        fits = np.maximum(first, second) < np.uint64(PRIME)
        return largest, np.asarray(fits.all(axis=1) & (largest.sum(axis=1) == 1))
    if isinstance(last, Positive):
        fits = np.maximum(first, second) <= np.uint64(1)
        return (first ^ second).astype(bool), np.asarray(fits.all(axis=1))
    logits = decode(join(first, second), program.answer_fraction)
    reach = program.answer_range + program.error_bound
    return logits, np.asarray((np.abs(logits) <= reach).all(axis=1))
