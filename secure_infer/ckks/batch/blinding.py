"""Blinds of a batch: encryptions of zero with a Gaussian flood on every coefficient, since every one is an answer.

As in `ckks.blinding`, a blind depends on key and plan alone, and is used once.
"""

from __future__ import annotations

import math
import os

import numpy as np

from secure_infer.ckks.batch.gemm import Integers, canonical, centre, scale
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.blinding import Blinder, system_normal
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.residues import Residues

_FLOAT_BITS = 40
_WORD = 32


def gaussian_residues(deviation: float, count: int, primes: tuple[int, ...]) -> Residues:
    """A rounded Gaussian of that standard deviation, as residues (primes, count); full resolution at any size.

    As `ckks.blinding.gaussian_integers`: beyond 2^40 a float's value is filled up with uniform low bits.
    """
    shift = max(0, math.ceil(math.log2(max(deviation, 1.0))) - _FLOAT_BITS)
    coarse = np.rint(system_normal(count) * (deviation / 2.0**shift)).astype(np.int64)
    words: list[tuple[int, Integers]] = []  # (bits, uniform integers), highest first
    for start in range(0, shift, _WORD):
        bits = min(_WORD, shift - start)
        drawn = np.frombuffer(os.urandom(4 * count), "<u4").astype(np.int64)
        words.append((bits, drawn & ((1 << bits) - 1)))
    rows = []
    for prime in primes:
        total = centre(coarse.copy(), prime)
        for bits, word in words:
            total = centre(scale(total, 1 << bits, prime) + word, prime)
        rows.append(canonical(centre(total, prime), prime))
    return np.stack(rows)


class BatchBlinder(Blinder):
    """A `Blinder` whose flood is on every coefficient."""

    def __init__(self, plan: BatchPlan, public: Half) -> None:
        super().__init__(plan, public)
        self._deviation /= plan.spread

    def _flood(self, primes: tuple[int, ...]) -> Residues:
        return gaussian_residues(self._deviation, self._plan.parameters.degree, primes)
