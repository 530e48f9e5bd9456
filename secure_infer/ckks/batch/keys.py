"""Switching keys of the slots layout, which bring conjugates back under the one secret.

Squaring both parts of a slot takes the ciphertext's conjugate, which is encrypted under the conjugate secret σ(s). Rather
than switch every hidden unit, sums of products are kept over the basis 1, s, s², σ(s), σ(s)², s·σ(s), and only outputs are
switched: one key for each element but the first two. They are made as SEAL makes its relinearisation key (for s²), and
SEAL applies them as such: as keys for the third to sixth part of a ciphertext. They travel as `keymaterial` describes.

Security rests, as with all switching keys, on encryptions of functions of the secret under itself being safe to publish.
The functions here are no stronger an assumption than the usual ones: whoever holds the usual relinearisation key (for s²)
and the Galois key of conjugation (for σ(s)) can compute encryptions of σ(s)² and s·σ(s) from them, by squaring or
multiplying and switching, with more noise than the keys published here have. Only that difference in noise is new.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.batch.gemm import canonical, centred, scale
from secure_infer.ckks.batch.packing import negacyclic
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.residues import Residues, add
from secure_infer.ckks.sealio import SwitchingKey

PARTS = 6
"""Parts of a ciphertext over the basis 1, s, s², σ(s), σ(s)², s·σ(s)."""


def conjugate(coefficients: NDArray[np.int64]) -> NDArray[np.int64]:
    """m(X^-1) modulo X^N + 1: every slot conjugated."""
    return np.concatenate([coefficients[:1], -coefficients[:0:-1]])


def targets(secret: NDArray[np.int8]) -> list[NDArray[np.int64]]:
    """The polynomials (N,) whose keys are needed, in the order of a ciphertext's parts: s², σ(s), σ(s)², s·σ(s)."""
    own = secret.astype(np.int64)
    other = conjugate(own)
    return [_product(own, own), other, _product(other, other), _product(own, other)]


def _product(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    return negacyclic(a.astype(np.float64), b.astype(np.float64))


def switching_key(parameters: Parameters, target: Residues, zeros: list[Half]) -> SwitchingKey:
    """The key for `target` (data primes, N), NTT form, from a seeded key-level encryption of zero for each data prime.

    As SEAL has it: modulo its own prime, number i encrypts the special prime times the target, and zero modulo the others.
    """
    primes, special = parameters.data_primes, parameters.primes[-1]
    key = []
    for index, ((c0, seed), prime) in enumerate(zip(zeros, primes, strict=True)):
        lifted = canonical(scale(centred(target[index], prime), special, prime), prime)
        moved = c0.copy()
        moved[index] = add(c0[index][None], lifted[None], [prime])[0]
        key.append((moved, seed))
    return key


def switched(ring: seal.Ring, parts: Residues, keys: Sequence[seal.RelinKeys]) -> seal.Ciphertext:
    """The ciphertext of two parts equal to `parts` (2 or 6, primes left, N), NTT form, with one key a part beyond two."""
    total = ring.load(parts[:2])
    # SEAL switches one part beyond the second at a time (given more, it takes the last one for all of them).
    for part, key in zip(parts[2:], keys, strict=len(parts) > 2):
        if part.any():
            term = ring.load(np.concatenate([np.zeros_like(parts[:2]), part[None]]))
            ring.relinearise(term, key)
            ring.add_to(total, term)
    return total
