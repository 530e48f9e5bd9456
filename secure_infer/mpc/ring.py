"""The ring Z_2^64 and fixed point in it.

A word is a numpy uint64; numbers live in it as two's complement. A real v at f fraction bits is round(v * 2^f) mod 2^64:
at f = 4, 1.5 is 24 and -1.5 is 2^64 - 24. Sums and products of words are those of the integers they stand for, as long as
these stay below 2^63.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

LIMB = 22
"""Bits of a limb: products of two, summed over up to 512 terms, are exact in float64 (44 + 9 <= 53)."""
_TERMS = 512
_FEW_ROWS = 3
"""Below it, numpy's own integer product is quicker than limbs."""


def encode(x: Any, fraction: int) -> Words:
    """Reals at `fraction` bits, as words of the same shape. The caller holds |x| * 2^fraction below 2^63."""
    return np.rint(np.ldexp(np.asarray(x, dtype=np.float64), fraction)).astype(np.int64).view(np.uint64)


def decode(words: Words, fraction: int) -> Floats:
    """The reals (float64) that words at `fraction` bits stand for."""
    return np.asarray(np.ldexp(words.view(np.int64).astype(np.float64), -fraction))


def truncate(share: Words, bits: int, party: int) -> Words:
    """A share of about v / 2^bits from a share of v, without a message (Mohassel and Zhang, SecureML, 2017).

    Party 0 shifts its share, party 1 the negative of its own; the sum is v / 2^bits rounded down or up at random, off by
    2^(64 - bits) with probability |v| / 2^64. 4 bits of v = 37, shares 100 and -63: 6 and -3, the sum is 3, where 2 or 3
    are right.
    """
    if not bits:
        return share
    shift = np.uint64(bits)
    if party == 0:
        return share >> shift
    return -(-share >> shift)


class Matrix:
    """A matrix of words (inputs, outputs) made ready to be multiplied often, and exactly mod 2^64.

    Words have no BLAS. Rows in number go by float64 limbs: with limbs of 22 bits, a * b mod 2^64 is the sum of
    a_i b_j 2^(22 (i + j)) over i + j <= 2, at most six products; entries that fit one limb as signed numbers, as replicated
    weights do, need three.
    """

    def __init__(self, words: Words) -> None:
        self.words = np.ascontiguousarray(words)
        signed = self.words.view(np.int64)
        self._small = bool(np.abs(signed).max(initial=0) < 1 << (LIMB - 1))
        self._limbs: list[Floats] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words.shape

    def apply(self, rows: Words) -> Words:
        """rows @ self, (B, inputs) to (B, outputs)."""
        if len(rows) < _FEW_ROWS:
            return np.asarray(rows @ self.words)
        total = np.zeros((len(rows), self.shape[1]), dtype=np.uint64)
        for start in range(0, self.shape[0], _TERMS):
            part = slice(start, start + _TERMS)
            self._add_product(total, rows[:, part], part)
        return total

    def _add_product(self, total: Words, rows: Words, part: slice) -> None:
        if not self._limbs:
            self._limbs = [self.words.view(np.int64).astype(np.float64)] if self._small else limbs(self.words)
        left = limbs(rows)
        for j, right in enumerate(self._limbs):
            for i in range(3 - j):
                product = (left[i] @ right[part]).astype(np.int64).view(np.uint64)
                total += product << np.uint64(LIMB * (i + j))


def limbs(words: Words) -> list[Floats]:
    """Three limbs of 22, 22 and 20 bits, as float64: words = sum of limb_i * 2^(22 i)."""
    mask = np.uint64((1 << LIMB) - 1)
    return [((words >> np.uint64(LIMB * i)) & mask).astype(np.float64) for i in range(3)]
