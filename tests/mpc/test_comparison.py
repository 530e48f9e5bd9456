"""Signs, ReLU and argmax by one-time truth tables: right on every kind of number, and what is sent is what is stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.two_parties import run_protocol
from secure_infer.mpc.comparison import Argmax, Relu, Signs, argmax, positive, relu
from secure_infer.mpc.correlations import MOD

VALUES = st.one_of(
    st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-70, 70), st.sampled_from([2**30, -(2**30), 1, 0, -1])
)


def words(values: list[int] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int64).view(np.uint64)


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_relu_is_exact(values: list[int]) -> None:
    (first, second), links = run_protocol(relu, (Relu(len(values)),), words(values))
    assert ((first + second).view(np.int64) == np.maximum(values, 0)).all()
    assert (links[0].rounds, links[0].sent) == (3, 9 * len(values) + (len(values) + 7) // 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_positive_is_exact(values: list[int]) -> None:
    (first, second), links = run_protocol(positive, (Signs(len(values)),), words(values))
    assert ((first ^ second).astype(bool) == (np.array(values) > 0)).all()
    assert (links[0].rounds, links[0].sent) == (2, 9 * len(values))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(2, 9), st.sampled_from([2, 100, 2**30]), st.randoms(use_true_random=False))
def test_argmax_is_the_first_of_the_largest(rows: int, classes: int, largest: int, random: object) -> None:
    values = np.array([[random.randint(-largest + 1, largest - 1) for _ in range(classes)] for _ in range(rows)])
    (first, second), links = run_protocol(argmax, (Argmax(rows, classes),), words(values))
    joined = MOD.join(first, second)
    assert ((joined == 0).sum(axis=1) == 1).all()
    assert ((joined == 0).argmax(axis=1) == values.argmax(axis=1)).all()
    pairs = rows * classes * (classes - 1) // 2
    assert (links[0].rounds, links[0].sent) == (3, 8 * rows * classes + pairs + (pairs + 7) // 8)


def test_every_digit_boundary() -> None:
    """Numbers next to all powers of two, both signs: where a digit's table or a carry could go wrong."""
    powers = [2**k + d for k in range(31) for d in (-1, 0, 1) if 2**k + d < 2**31]
    values = np.array([*powers, *(-p for p in powers)])
    (first, second), _ = run_protocol(relu, (Relu(len(values)),), words(values))
    assert ((first + second).view(np.int64) == np.maximum(values, 0)).all()


def test_high_words_do_not_disturb_a_comparison() -> None:
    """A failed truncation adds a multiple of 2^32, which the sign does not see."""
    values = np.array([5, -5, 7, -7]) + (np.array([1, 1, -3, -3]) << 32)
    (first, second), _ = run_protocol(positive, (Signs(4),), words(values))
    assert (first ^ second).tolist() == [1, 0, 1, 0]


def test_losers_look_uniform() -> None:
    """What the client learns of a class that is not the largest is a uniform non-zero number, however close it came."""
    values = np.tile(np.array([[10, 9, -(2**29), 3]]), (5000, 1))
    (first, second), _ = run_protocol(argmax, (Argmax(5000, 4),), words(values))
    losers = MOD.join(first, second)[:, 1:]
    assert (losers > 0).all()
    for column in losers.T:
        counts = np.bincount((column * np.uint64(32) // np.uint64(2**31)).astype(int), minlength=32)
        # 31 degrees of freedom: 84 is exceeded with probability 1e-6.
        assert ((counts - 5000 / 32) ** 2 / (5000 / 32)).sum() < 84


@pytest.mark.parametrize("classes", [2, 64, 128])
def test_many_classes(classes: int) -> None:
    values = np.random.default_rng(classes).integers(-1000, 1000, size=(3, classes))
    (first, second), _ = run_protocol(argmax, (Argmax(3, classes),), words(values))
    assert ((MOD.join(first, second) == 0).argmax(axis=1) == values.argmax(axis=1)).all()
