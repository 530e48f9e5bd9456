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
from secure_infer.ckks.plan import CoefficientPlan
from secure_infer.ckks.residues import Residues, add, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import MalformedRequest

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


def parse_key(plan: CoefficientPlan, data: bytes) -> tuple[Residues, bytes]:
    """(c0 (all primes, N), seed) of an uploaded public key; raises MalformedRequest on any other length or content.

    The wire has no place for the uniform half: it is always expanded from the seed, so pk1 cannot be chosen.
    """
    if len(data) != plan.key_bytes:
        raise MalformedRequest(f"public key: expected {plan.key_bytes} bytes for {plan.parameters}, got {len(data)}")
    residues = unpack_residues(data[:-SEED_BYTES], plan.parameters.degree, plan.parameters.primes, "public key")
    return residues, data[-SEED_BYTES:]


class Blinder:
    """Makes blinds for one client key and plan."""

    def __init__(self, plan: CoefficientPlan, key: bytes) -> None:
        self._plan = plan
        self._ring = seal.ring(plan.parameters)
        self._encryptor = self._ring.zero_encryptor(*parse_key(plan, key))
        self._positions = [plan.position(t) for t in range(plan.answers_per_product)]
        self._deviation = plan.flood * float(plan.input_scale) * plan.weight_scale

    def residues(self) -> Residues:
        """A fresh blind as residues (2, data primes, N) in NTT form."""
        primes = self._plan.parameters.data_primes
        zero = self._ring.residues(self._ring.encrypt_zero(self._encryptor)).copy()
        flood = np.zeros((len(primes), self._plan.parameters.degree), np.uint64)
        for position, value in zip(
            self._positions, gaussian_integers(self._deviation, len(self._positions)), strict=True
        ):
            flood[:, position] = [value % prime for prime in primes]
        zero[0] = add(zero[0], self._ring.ntt_residues(flood), primes)
        return zero

    def blind(self) -> seal.Ciphertext:
        """A fresh blind, ready to be added to a product."""
        return self._ring.load(self.residues())
