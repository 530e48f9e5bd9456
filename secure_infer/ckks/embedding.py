"""The canonical embedding: a polynomial's coefficients and its values at SEAL's slot points.

Slot j of n = N/2 is the value at exp(iπ/N)^(3^j); the other N/2 odd powers hold the conjugates. With N = 4 the slots are
the values at w and w³, w = exp(iπ/4), so that X² has the slots (w², w⁶) = (i, -i).

A rotation by r moves slot j + r to slot j (the automorphism X -> X^(3^r)); conjugation is X -> X^(2N-1). A product of
polynomials is a product of slots, and coefficient p of a real polynomial is (2/N) Re(sum_j slot_j · zeta_j^-p).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.complex128]


@lru_cache(maxsize=8)
def exponents(degree: int) -> NDArray[np.int64]:
    """3^j mod 2N for each slot j (N/2,): slot j is the value at exp(iπ/N) to that power."""
    found = np.empty(degree // 2, np.int64)
    power = 1
    for j in range(len(found)):
        found[j] = power
        power = power * 3 % (2 * degree)
    found.setflags(write=False)
    return found


def element(rotation: int, degree: int) -> int:
    """The Galois element 3^rotation mod 2N that moves slot j + rotation to slot j."""
    return pow(3, rotation % (degree // 2), 2 * degree)


def conjugation(degree: int) -> int:
    """The Galois element that conjugates every slot."""
    return 2 * degree - 1


def roots(degree: int, power: int) -> Slots:
    """zeta_j^power for every slot j (N/2,)."""
    return np.asarray(np.exp(1j * np.pi * (exponents(degree) * power % (2 * degree)) / degree))


@lru_cache(maxsize=8)
def _turn(degree: int) -> Slots:
    return np.asarray(np.exp(1j * np.pi * np.arange(degree) / degree))


def to_coefficients(slots: Slots) -> NDArray[np.float64]:
    """Coefficients (N,) of the real polynomial with those slots (N/2,)."""
    degree = 2 * len(slots)
    values = np.empty(degree, np.complex128)
    index = exponents(degree)
    values[(index - 1) // 2] = slots
    values[(2 * degree - index - 1) // 2] = np.conj(slots)
    return np.asarray(np.real(np.fft.ifft(np.conj(values)) * _turn(degree)))


def to_slots(coefficients: NDArray[np.float64]) -> Slots:
    """Slots (N/2,) of the real polynomial with those coefficients (N,)."""
    degree = len(coefficients)
    values = np.conj(np.fft.fft(coefficients * np.conj(_turn(degree))))
    return np.asarray(values[(exponents(degree) - 1) // 2])
