"""Residue products are exact: against Python's integers and against SEAL."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import seal
from secure_infer.ckks.batch import gemm
from secure_infer.errors import UnsupportedHead

PRIMES = {bits: seal.parameters(4096, (bits,)).data_primes[0] for bits in (24, 36, 44, 50, 52, 60)}


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(sorted(PRIMES)),
    weight_bits=st.integers(0, 30),
    rows=st.integers(1, 4),
    depth=st.integers(1, 30),
    cut=st.integers(0, 30),
    extreme=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_groups_of_residues_add_up_to_the_exact_product(
    bits: int, weight_bits: int, rows: int, depth: int, cut: int, extreme: bool, seed: int
) -> None:
    rng, prime = np.random.default_rng(seed), PRIMES[bits]
    weights = rng.integers(-(2**weight_bits), 2**weight_bits + 1, (rows, depth))
    residues = rng.integers(0, prime, (depth, 70), np.uint64)
    if extreme:
        weights[:] = 2**weight_bits
        residues[:] = prime - 1
    total = gemm.Accumulator(weights, 70, prime)
    for start, stop in ((0, min(cut, depth)), (min(cut, depth), depth)):
        if start < stop:
            total.add(start, list(residues[start:stop]))
    found = total.result(slice(None), slice(None))
    expected = weights.astype(object) @ residues.astype(object)
    assert np.abs(found).max() <= prime // 2 + 1
    assert (gemm.canonical(found, prime).astype(object) == expected % prime).all()
    assert ((gemm.Matrix(weights, prime) @ gemm.centred(residues, prime) - found.astype(object)) % prime == 0).all()


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from([24, 36, 44, 50, 52]), seed=st.integers(0, 2**32))
def test_products_of_residues(bits: int, seed: int) -> None:
    prime, rng = PRIMES[bits], np.random.default_rng(seed)
    a, b = (gemm.centred(rng.integers(0, prime, 400, np.uint64), prime) for _ in range(2))
    a[:4], b[:4] = [prime // 2, -(prime // 2), prime // 2, 1], [prime // 2, prime // 2, -(prime // 2), 0]
    found = gemm.multiply(a, b, prime)
    assert np.abs(found).max() <= prime
    assert ((found.astype(object) - a.astype(object) * b.astype(object)) % prime == 0).all()


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from(sorted(PRIMES)), factor=st.integers(-(2**130), 2**130), seed=st.integers(0, 2**32))
def test_multiples_of_residues(bits: int, factor: int, seed: int) -> None:
    prime = PRIMES[bits]
    values = np.random.default_rng(seed).integers(-prime, prime + 1, 100)
    found = gemm.scale(values, factor, prime)
    assert np.abs(found).max() <= prime // 2 + 1
    assert ((found.astype(object) - values.astype(object) * factor) % prime == 0).all()


def test_bit_for_bit_what_seal_computes() -> None:
    ring = seal.ring(seal.parameters(4096, (40, 40), 24))
    primes, rng = ring.parameters.data_primes, np.random.default_rng(5)
    weights = rng.integers(-(2**18), 2**18, (1, 6))
    query = [np.stack([[rng.integers(0, p, 4096, np.uint64) for p in primes] for _ in range(2)]) for _ in range(6)]
    constant = np.zeros(4096, np.int64)
    total = None
    for weight, ciphertext in zip(weights[0], query, strict=True):
        constant[0] = weight
        term = ring.multiply(ring.load(ciphertext), ring.plaintext(constant))
        if total is None:
            total = term
        else:
            ring.add_to(total, term)
    for index, prime in enumerate(primes):
        sums = gemm.Accumulator(weights, 2 * 4096, prime)
        sums.add(0, [ciphertext[:, index].reshape(-1) for ciphertext in query])
        found = gemm.canonical(sums.result(slice(None), slice(None)), prime)
        assert np.array_equal(found.reshape(2, 4096), ring.residues(total)[:, index])


def test_weights_without_room_are_refused() -> None:
    with pytest.raises(UnsupportedHead, match="exact"):
        gemm.limb_bits(np.full((1, 4), 2**51), 60)


def test_the_worked_example() -> None:
    matrix = gemm.Matrix(np.array([[3, -2]]), 241)
    assert (matrix @ np.array([[200 - 241], [17]])).item() % 241 == 84
