"""Uniform halves of a batch's ciphertexts: expanded from a 64-byte seed by AES-256 in counter mode.

SEAL expands seeds by BLAKE2xb, a compression for each 64 bytes; at one ciphertext a feature that is most of what a linear
head costs. AES in counter mode, on hardware made for it, is twenty times as fast (FrodoKEM expands its uniform matrix so
too). SEAL still encrypts, and decrypts once: with an encryption (c0, a) under the secret s, noise included, and the
uniform half a' of a seed,

    c0' = c0 + (a - a')·s,   so that   c0' + a'·s = c0 + a·s

and c0' is what (c0, a - a') decrypts to. So the secret never has to leave SEAL for it.

Key and first counter are SHA-512 of the seed, so a sender cannot choose them. Residues are the stream's 64-bit words, cut
to the prime's bits; words that are not below the prime are skipped (rejection sampling), in a second run of the stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_infer.ckks import seal
from secure_infer.ckks.residues import Residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import InternalFault

_DOMAIN = b"secure-infer batch uniform half 1"


def expand(seed: bytes, primes: Sequence[int], degree: int) -> Residues:
    """Uniform residues (primes, N) that belong to the seed."""
    if len(seed) != SEED_BYTES:
        raise InternalFault(f"seed: expected {SEED_BYTES} bytes, got {len(seed)}")
    digest = hashlib.sha512(_DOMAIN + seed).digest()
    stream = Cipher(algorithms.AES(digest[:32]), modes.CTR(digest[32:48])).encryptor()
    words = np.frombuffer(stream.update(bytes(8 * len(primes) * degree)), "<u8").reshape(len(primes), degree)
    residues = np.empty((len(primes), degree), np.uint64)
    for row, drawn, prime in zip(residues, words, primes, strict=True):
        np.bitwise_and(drawn, np.uint64((1 << prime.bit_length()) - 1), out=row)
    # Only now the further words, so that where they are read does not depend on the order of the primes' checks.
    for row, prime in zip(residues, primes, strict=True):
        if row.max() >= prime:
            over = np.flatnonzero(row >= prime)
            further = _below(stream, prime)
            row[over] = [next(further) for _ in over]
    return residues


def _below(stream: object, prime: int) -> Iterator[int]:
    mask = (1 << prime.bit_length()) - 1
    while True:
        for word in np.frombuffer(stream.update(bytes(512)), "<u8").tolist():  # type: ignore[attr-defined]
            if word & mask < prime:
                yield word & mask


def rebase(ring: seal.Ring, encryption: seal.Ciphertext, seed: bytes) -> None:
    """(c0, a) to (c0, a - a') in place, a' the uniform half of `seed`; NTT form, at the data level.

    Its decryption, noise included, is c0': half of an encryption of the same with a'.
    """
    uniform = expand(seed, ring.parameters.data_primes, ring.parameters.degree)
    ring.evaluator.sub_inplace(encryption, ring.load(np.stack([np.zeros_like(uniform), uniform])))
