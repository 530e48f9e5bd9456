"""Packing, reduction and checks of residues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.ckks.residues import (
    add,
    centred,
    pack,
    pack_residues,
    packed_bytes,
    reduce,
    switch_modulus,
    unpack,
    unpack_residues,
)
from secure_infer.errors import MalformedRequest


def test_the_worked_example() -> None:
    assert pack(np.array([0xABC, 0xDEF], np.uint64), 12).hex() == "bcfade"


@given(st.integers(1, 64), st.integers(1, 40), st.data())
def test_packing_round_trips(bits: int, pairs: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=2 * pairs, max_size=2 * pairs))
    packed = pack(np.array(values, np.uint64), bits)
    assert len(packed) == packed_bytes(len(values), bits)
    assert unpack(packed, len(values), bits, "x").tolist() == values


@given(st.binary(max_size=64))
def test_any_other_length_is_refused(data: bytes) -> None:
    if len(data) != 30:
        with pytest.raises(MalformedRequest, match="expected 30 bytes"):
            unpack(data, 4, 60, "query")


def test_residues_not_below_their_prime_are_refused() -> None:
    primes = (8796092833793, 8796092858369)
    good = np.array([[primes[0] - 1, 0], [primes[1] - 1, 5]], np.uint64)
    assert np.array_equal(unpack_residues(pack_residues(good, primes), 2, primes, "q"), good)
    good[1, 1] = primes[1]
    with pytest.raises(MalformedRequest, match="not below their prime"):
        unpack_residues(pack_residues(good, primes), 2, primes, "q")


@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=8))
def test_reduction_and_addition(values: list[int]) -> None:
    primes = (1152921504606830593, 1032193)
    residues = reduce(np.array(values, np.int64), primes)
    total = add(residues, residues, primes)
    for row, doubled, prime in zip(residues, total, primes, strict=True):
        assert row.tolist() == [v % prime for v in values]
        assert doubled.tolist() == [2 * v % prime for v in values]


@given(st.integers(1, 52), st.lists(st.integers(0, 2**60), min_size=2, max_size=20), st.sampled_from([60, 53, 43]))
def test_switching_a_modulus_rounds_to_the_nearest(bits: int, values: list[int], prime_bits: int) -> None:
    modulus = 2**prime_bits - 16383
    residues = np.array([v % modulus for v in values] + [modulus - 1], np.uint64)
    switched = switch_modulus([residues[:1], residues[1:]], modulus, bits)
    slack = 1 + 2 ** max(0, bits - 50)  # twice the rounding, and that of a float's 53 bits
    for found, value in zip(switched.tolist(), residues.tolist(), strict=True):
        assert 0 <= found < 2**bits
        assert abs(centred(2 * (found * modulus - (value << bits)), 2 * modulus << bits)) <= slack * modulus


@given(st.integers(), st.integers(2, 2**70))
def test_centred(value: int, modulus: int) -> None:
    found = centred(value, modulus)
    assert (found - value) % modulus == 0
    assert -modulus < 2 * found <= modulus
