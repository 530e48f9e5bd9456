"""Words, fixed point, sharing and truncation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc.ring import Matrix, decode, encode, limbs, truncate
from secure_infer.mpc.sharing import join, split
from secure_infer.mpc.streams import KeyedStream, derive, fresh_key, uniform_words


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(1, 30))
def test_fixed_point_keeps_half_a_unit(values: list[float], fraction: int) -> None:
    found = decode(encode(values, fraction), fraction)
    assert np.abs(found - values).max() <= 2.0 ** -(fraction + 1)


def test_the_worked_example_of_fixed_point() -> None:
    assert encode([1.5, -1.5], 4).tolist() == [24, 2**64 - 24]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_shares_join_to_what_was_split(values: list[int]) -> None:
    x = np.array(values, dtype=np.uint64)
    first, second = split(x)
    assert (join(first, second) == x).all()


@given(st.integers(1, 9), st.integers(1, 1100), st.integers(1, 5), st.booleans())
def test_products_are_exact(rows: int, inputs: int, outputs: int, small: bool) -> None:
    left = uniform_words(rows * inputs).reshape(rows, inputs)
    right = uniform_words(inputs * outputs).reshape(inputs, outputs)
    if small:
        right = (right >> np.uint64(44)) - np.uint64(1 << 19)
    assert (Matrix(right).apply(left) == left @ right).all()


def test_products_of_the_largest_limbs_are_exact() -> None:
    ones = np.full((4, 512), 2**64 - 1, dtype=np.uint64)
    assert (Matrix(ones.T.copy()).apply(ones) == ones @ ones.T).all()


def test_limbs_add_up() -> None:
    words = uniform_words(100)
    total = sum(limb.astype(np.uint64) << np.uint64(22 * i) for i, limb in enumerate(limbs(words)))
    assert (total == words).all()


@given(st.integers(-(2**40), 2**40), st.integers(1, 30))
def test_truncation_rounds_up_or_down(value: int, bits: int) -> None:
    """A failure has probability 2^-24 at most for these values, and is off by 2^34 at least."""
    x = np.full(50, value, dtype=np.int64).view(np.uint64)
    first, second = split(x)
    found = (truncate(first, bits, 0) + truncate(second, bits, 1)).view(np.int64)
    assert set(found.tolist()) <= {value >> bits, (value >> bits) + 1}


def test_truncation_fails_as_often_as_computed() -> None:
    """|v| = 2^60 fails once in 16, and is off by 2^(64 - bits) then."""
    x = np.full(20_000, 1 << 60, dtype=np.uint64)
    first, second = split(x)
    found = (truncate(first, 20, 0) + truncate(second, 20, 1)).view(np.int64) - (1 << 40)
    failed = np.abs(found) > 1
    assert set(np.abs(found[failed]).tolist()) <= {2**44 - 1, 2**44, 2**44 + 1}
    assert abs(failed.mean() - 1 / 16) < 5 * (1 / 16 / 20_000) ** 0.5


def test_streams_are_fixed_by_their_key_and_never_repeat() -> None:
    key = fresh_key()
    one, other = KeyedStream(key), KeyedStream(key)
    words = one.words(64)
    assert (words == np.concatenate([other.words(10), other.words(54)])).all()
    assert not np.isin(one.words(64), words).any()
    assert derive(key, "a") != derive(key, "b") != key


def test_a_fork_cannot_go_on_with_a_stream() -> None:
    stream = KeyedStream(fresh_key())
    stream._process += 1
    with pytest.raises(CorrelationMisuse, match="fork"):
        stream.words(1)
