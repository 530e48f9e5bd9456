"""Integer matrices times matrices of residues, exactly, by float64 BLAS on limbs.

A product of an integer matrix W (rows, d) with residues modulo q (d, columns) is the plaintext-ciphertext matrix product
of Bae et al., "Plaintext-Ciphertext Matrix Multiplication and FHE Bootstrapping" (CRYPTO 2024). Residues are cut into
limbs around zero, float64 products of limbs are exact while

    max_rows(sum_i |w_i|) * 2^(limb bits - 1) <= 2^53,

and they are put together again modulo q. With 4-bit limbs of residues below q = 241, W = (3, -2), residues (200, 17):

    200 = 12·16 + 8,  17 = 1·16 + 1       high: 3·12 - 2·1 = 34   low: 3·8 - 2·1 = 22   34·16 + 22 = 566 = 84 mod 241

Residues leave and enter as centred int64, at most half a prime from zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.residues import Residues
from secure_infer.errors import UnsupportedHead

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_BITS = 61
"""Primes of `recombine` are below 2^61."""

MAX_PRODUCT_BITS = 52
"""Primes of `multiply` are below 2^52: there the quotient's error stays within half a unit."""

COLUMNS = 2048
"""Columns worked on at once, so that intermediate results stay in the processor's cache."""

_EXACT = 53
_ONE = np.float64(2.0**52)
_ONE_BITS = np.uint64(0x4330000000000000)  # 2^52 as float64: an integer below 2^52 joins it by its bits


def chunks(length: int, step: int = COLUMNS) -> Iterator[slice]:
    """Slices of at most `step` that cover range(length)."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def limb_bits(weights: Integers, bits: int) -> int:
    """Width of the limbs in which residues below 2^bits are multiplied by `weights` (rows, d) exactly.

    Raises UnsupportedHead where the weights leave no room.
    """
    largest = float(np.abs(weights.astype(np.float64)).sum(axis=1).max(initial=1.0))
    room = min(_EXACT - 1, math.floor(_EXACT - math.log2(max(1.0, largest)) + 1))
    if room < 2:
        raise UnsupportedHead("batch plan: the rounded weights are too large for exact products; allow a larger error")
    return -(-bits // -(-bits // room))


def centre(values: Integers, prime: int) -> Integers:
    """`values` reduced to [-prime/2, prime/2], give or take rounding, in place; |values| below 2^62."""
    values -= np.rint(values * (1.0 / prime)).astype(np.int64) * np.int64(prime)
    return values


def canonical(values: Integers, prime: int) -> Residues:
    """Values within (-prime, prime) as residues in [0, prime)."""
    return np.where(values < 0, values + np.int64(prime), values).view(np.uint64)


def centred(residues: Residues, prime: int) -> Integers:
    """Residues below `prime` as int64 in (-prime/2, prime/2]."""
    signed = residues.astype(np.int64)
    signed[signed > prime // 2] -= prime
    return signed


def multiply(a: Integers, b: Integers, prime: int) -> Integers:
    """a·b modulo `prime`, |result| <= prime; a and b centred, of broadcasting shapes.

    The quotient is rounded in float64, its product with the prime wraps around 2^64 as a·b does: the difference is exact.
    """
    quotient = np.rint(a.astype(np.float64) * b.astype(np.float64) * (1.0 / prime))
    product = a * b
    product -= quotient.astype(np.int64) * np.int64(prime)
    return product


def scale(values: Integers, factor: int, prime: int) -> Integers:
    """values·factor modulo `prime`, centred, for values within ±prime, any integer factor and primes below 2^61."""
    factor %= prime
    result = np.zeros_like(values)
    step = 20  # quotients of a product by 20 bits are exact enough in float64 at 61 bits
    for digit in range(-(-factor.bit_length() // step) - 1, -1, -1):
        if digit != -(-factor.bit_length() // step) - 1:
            result = _times(result, 1 << step, prime)
        result = centre(result + _times(values, (factor >> (digit * step)) & ((1 << step) - 1), prime), prime)
    return result


def _times(values: Integers, factor: int, prime: int) -> Integers:
    """values·factor modulo `prime`, centred give or take a unit; 0 <= factor < 2^32, |values| <= prime."""
    quotient = np.rint(values * (factor / prime)).astype(np.int64)
    return centre(values * np.int64(factor) - quotient * np.int64(prime), prime)


def recombine(limbs: list[Floats], bits: int, prime: int, offset: Integers | int = 0) -> Integers:
    """offset + sum_l limbs[l]·2^(l·bits) modulo `prime`, centred; limbs are integers of at most 2^53, |offset| <= prime."""
    total = limbs[-1].astype(np.int64)
    for limb in limbs[-2::-1]:
        total = _times(centre(total, prime), 1 << bits, prime)
        total += limb.astype(np.int64)
    total += offset
    return centre(total, prime)


def split(values: Integers, bits: int, count: int) -> list[Floats]:
    """Signed integers as `count` limbs of `bits` bits around zero, lowest first; the last takes what is left."""
    limbs = []
    half, mask = np.int64(1 << (bits - 1)), np.int64((1 << bits) - 1)
    rest = values
    for _ in range(count - 1):
        shifted = rest + half
        limbs.append(((shifted & mask) - half).astype(np.float64))
        rest = shifted >> np.int64(bits)
    limbs.append(rest.astype(np.float64))
    return limbs


class Matrix:
    """weights (rows, d), ready to multiply signed residues modulo `prime`."""

    def __init__(self, weights: Integers, prime: int) -> None:
        self._prime, reach = prime, prime.bit_length() + 1
        self._bits = limb_bits(weights, reach)
        self._limbs = -(-reach // self._bits)
        self._weights = weights.astype(np.float64)

    def __matmul__(self, values: Integers) -> Integers:
        """The product with values (d, columns), |values| <= prime; centred."""
        limbs = split(values, self._bits, self._limbs)
        return recombine([self._weights @ limb for limb in limbs], self._bits, self._prime)


class Accumulator:
    """weights (rows, d) times residues (d, columns) modulo `prime`, where rows of residues come in groups.

    Nothing is reduced between groups: the float64 sums are exact to the end. Memory is 8 bytes a row, column and limb.
    """

    def __init__(self, weights: Integers, columns: int, prime: int) -> None:
        self._prime, self._bits = prime, limb_bits(weights, prime.bit_length())
        self._weights = weights.astype(np.float64)
        # Limbs are taken around zero; what that subtracts comes back in one addition.
        self.limbs = -(-prime.bit_length() // self._bits)
        middle = sum(1 << ((limb + 1) * self._bits - 1) for limb in range(self.limbs))
        self._offset = np.array([[int(total) * middle % prime] for total in weights.sum(axis=1)], np.int64)
        self._sums = np.zeros((self.limbs, len(weights), columns))

    def add(self, start: int, residues: list[Residues]) -> None:
        """Adds rows start, start + 1, ... of the residues, each (columns,), below the prime."""
        weights = np.ascontiguousarray(self._weights[:, start : start + len(residues)])
        mask, centre = np.uint64((1 << self._bits) - 1), _ONE + np.float64(1 << (self._bits - 1))
        for part in chunks(self._sums.shape[2]):
            block = np.stack([row[part] for row in residues])
            for limb in range(self.limbs):
                cut = block if limb == 0 else block >> np.uint64(limb * self._bits)
                cut = (cut & mask) | _ONE_BITS
                self._sums[limb, :, part] += weights @ (cut.view(np.float64) - centre)

    def result(self, rows: slice, columns: slice) -> Integers:
        """A block of the product, centred."""
        sums = [limb[rows, columns] for limb in self._sums]
        return recombine(sums, self._bits, self._prime, self._offset[rows])
