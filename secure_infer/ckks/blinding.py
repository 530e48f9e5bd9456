"""Blinds: encryptions of zero under the client's public key, with a Gaussian flood on the coefficients that answer.

The zero encryption hides the products' coefficients from the key holder, the flood hides the product's own noise, which
is a function of the weights and of randomness the client knows. A blind depends only on key and plan, so it is made
ahead of use; it is used once. Gaussian rather than uniform: needed queries then grow as 4^s instead of 2^s.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Plan
from secure_infer.ckks.residues import Residues, add

_FLOAT_BITS = 40


def system_normal(count: int) -> NDArray[np.float64]:
    """Standard normal deviates from the operating system's randomness (Box-Muller on 53-bit uniforms)."""
    pairs = -(-count // 2)
    words = np.frombuffer(os.urandom(16 * pairs), "<u8").reshape(2, pairs) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[0] + 0.5) / 2.0**53))
    angle = 2.0 * np.pi * words[1] / 2.0**53
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def gaussian_integers(deviation: float, count: int) -> list[int]:
    """Integers of a rounded Gaussian of that standard deviation, full resolution at any size.

    A float keeps 53 bits: beyond 2^40 the value is rounded coarsely and uniform low bits fill it up again, so that no
    low bit of what it is added to shows through.
    """
    shift = max(0, int(np.ceil(np.log2(max(deviation, 1.0)))) - _FLOAT_BITS)
    coarse = np.rint(system_normal(count) * (deviation / 2.0**shift)).astype(np.int64).tolist()
    fill = np.frombuffer(os.urandom(8 * count), "<u8").tolist()
    return [(int(c) << shift) + (int(f) & ((1 << shift) - 1)) for c, f in zip(coarse, fill, strict=True)]


class Blinder:
    """Makes blinds for one client and plan; `public` is the client's public key."""

    def __init__(self, plan: Plan, public: Half) -> None:
        self._plan = plan
        self._ring = seal.ring(plan.parameters)
        self._encryptor = self._ring.zero_encryptor(*public)
        self._positions = plan.flooded()
        self._deviation = plan.flood * plan.blind_unit

    def residues(self) -> Residues:
        """A fresh blind as residues (2, blind level, N) in NTT form."""
        level = self._plan.blind_level
        primes = self._plan.parameters.data_primes[:level]
        zero = self._ring.residues(self._ring.encrypt_zero(self._encryptor, level)).copy()
        zero[0] = add(zero[0], self._ring.ntt_residues(self._flood(primes)), primes)
        return zero

    def _flood(self, primes: tuple[int, ...]) -> Residues:
        """A Gaussian on the coefficients that answer, as residues (primes, N)."""
        flood = np.zeros((len(primes), self._plan.parameters.degree), np.uint64)
        for position, value in zip(
            self._positions, gaussian_integers(self._deviation, len(self._positions)), strict=True
        ):
            flood[:, position] = [value % prime for prime in primes]
        return flood

    def blind(self) -> seal.Ciphertext:
        """A fresh blind, ready to be added to a product."""
        return self._ring.load(self.residues())
