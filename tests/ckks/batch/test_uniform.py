"""Uniform halves: equal on both sides, uniform, and carried over without a change of the noise."""

import numpy as np
import pytest
from scipy import stats

from secure_infer.ckks import seal
from secure_infer.ckks.batch.uniform import expand, rebase
from secure_infer.errors import InternalFault


def test_expansion_is_uniform_below_each_prime_and_a_function_of_the_seed() -> None:
    primes = seal.parameters(8192, (25, 52), 30).data_primes
    residues = expand(bytes(64), primes, 8192)
    assert np.array_equal(residues, expand(bytes(64), primes, 8192))
    assert not np.array_equal(residues, expand(bytes(63) + b"\1", primes, 8192))
    for row, prime in zip(residues, primes, strict=True):
        assert row.max() < prime
        assert stats.kstest(row / prime, "uniform").pvalue > 1e-7


def test_words_beyond_the_prime_are_skipped() -> None:
    """A prime little above a power of two rejects half of the words."""
    prime = 2**20 + 7  # not used with SEAL
    row = expand(bytes(64), (prime,), 8192)[0]
    assert row.max() < prime
    assert stats.kstest(row / prime, "uniform").pvalue > 1e-7


def test_a_seed_of_another_length_is_a_fault() -> None:
    with pytest.raises(InternalFault):
        expand(bytes(32), (12289,), 4096)


def test_rebasing_keeps_the_phase() -> None:
    ring = seal.ring(seal.parameters(4096, (36, 36), 24))
    primes = ring.parameters.data_primes
    rng = np.random.default_rng(1)
    encryption = np.stack([[rng.integers(0, p, 4096, np.uint64) for p in primes] for _ in range(2)])
    polynomial = rng.integers(-1, 2, 4096)
    ciphertext = ring.load(encryption)
    rebase(ring, ciphertext, bytes(64))
    secret = ring.ntt(polynomial).astype(object)
    uniform = expand(bytes(64), primes, 4096)
    modulus = np.array(primes, object)[:, None]
    before = (encryption[0].astype(object) + encryption[1].astype(object) * secret) % modulus
    first, second = ring.residues(ciphertext).astype(object)
    moved = first + second * secret  # what SEAL decrypts it to
    assert ((moved + uniform.astype(object) * secret) % modulus == before).all()
