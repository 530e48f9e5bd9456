"""What is published: on a grid, noisy by the stated amount, and honest about what became uncertain."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from secure_infer.errors import InvalidInput
from secure_infer.heads import Head, ModelSpec
from secure_infer_client import Prediction, publish, publish_predictions
from secure_infer_client.publish import NOISE_BITS, distance
from shared import linear_head

FAILURE = 1e-9
"""Probability with which a statistical test here fails although all is well."""


@pytest.fixture(scope="module")
def head() -> Head:
    return linear_head(8, 3, scale=4.0)


BOUND = 1e-3


def prediction(logits: list[float]) -> Prediction:
    return Prediction("", 0.0, np.array(logits), 0.0, BOUND, certain=True)


def test_logits_lie_on_the_grid() -> None:
    found = publish(np.random.default_rng(0).normal(size=(100, 3)), BOUND)
    assert found.noise == 2**NOISE_BITS * BOUND
    assert found.noise <= found.step <= 2.5 * found.noise
    assert found.logits.shape == (100, 3)
    np.testing.assert_array_equal(np.rint(found.logits / found.step) * found.step, found.logits)
    assert f"{found.step:e}"[0] in "125"
    coarse = publish(np.zeros((5, 3)), BOUND, step=10.0)
    assert coarse.step == 10.0
    assert not coarse.logits.any()


@given(exponent=st.floats(-6, 6))
def test_the_default_grid_is_the_next_round_number(exponent: float) -> None:
    noise = BOUND * 10 ** (6 + exponent)
    assert 1 <= publish(np.zeros((1, 3)), BOUND, noise=noise).step / noise <= 2.5 * (1 + 1e-9)


def test_noise_has_the_stated_size() -> None:
    """With logits spread evenly over a step, rounding adds an independent step²/12 to the noise's variance."""
    first = publish(np.zeros((1, 3)), BOUND)
    logits = np.random.default_rng(1).uniform(-5, 5, size=(10_000, 3)) * first.step
    found = publish(logits, BOUND)
    errors = found.logits - logits
    expected = found.noise**2 + found.step**2 / 12
    low, high = stats.norm.ppf([FAILURE / 2, 1 - FAILURE / 2]) * math.sqrt(2 / errors.size)  # kurtosis is at most 3
    assert 1 + low < errors.var() / expected < 1 + high
    assert abs(errors.mean()) < stats.norm.ppf(1 - FAILURE / 2) * math.sqrt(expected / errors.size)


def test_nothing_seeds_the_noise() -> None:
    assert not {"seed", "rng", "generator", "random_state"} & set(inspect.signature(publish).parameters)
    logits, drawn = np.zeros((200, 3)), []
    for _ in range(2):
        np.random.seed(0)
        drawn.append(publish(logits, BOUND).logits)
    assert (drawn[0] != drawn[1]).any()


def test_the_distance_counts_rows_and_noise() -> None:
    one = distance(21, BOUND, BOUND * 2**7)
    assert one == pytest.approx(math.sqrt(21) / 2 / 2**7, rel=1e-4)
    assert distance(2100, BOUND, BOUND * 2**7) == pytest.approx(10 * one, rel=1e-3)
    assert distance(1_000_000, BOUND, BOUND) == 1.0
    assert publish(np.zeros((4, 3)), BOUND).distance == distance(12, BOUND, BOUND * 2**7)


def test_what_would_hide_nothing_is_refused() -> None:
    logits = np.zeros((1, 3))
    with pytest.raises(InvalidInput, match="hides nothing"):
        publish(logits, BOUND, noise=BOUND / 2)
    with pytest.raises(InvalidInput, match="hides nothing"):
        publish(logits, BOUND, noise=math.nan)
    with pytest.raises(InvalidInput, match="digits of noise"):
        publish(logits, BOUND, step=BOUND)
    with pytest.raises(InvalidInput, match="error_bound"):
        publish(logits, 0.0)
    for wrong in (np.zeros(3), np.zeros((0, 2)), np.full((1, 3), np.nan)):
        with pytest.raises(InvalidInput, match="finite logits"):
            publish(wrong, BOUND)


def test_uncertain_labels_are_reported(head: Head) -> None:
    spec = ModelSpec.of("m", head)
    clear, close = [0.0, 50.0, 0.0], [0.0, 1e-6, 0.0]
    found = publish_predictions(spec, [prediction(clear), prediction(close)])
    assert [one.certain for one in found] == [True, False]
    assert found[0].label == head.labels[1]
    assert found[0].probability == 1.0
    assert all(one.probability == round(one.probability, 2) for one in found)
    assert publish_predictions(spec, []) == []


def test_a_certain_label_is_the_right_one(head: Head) -> None:
    spec, rng = ModelSpec.of("m", head), np.random.default_rng(2)
    logits = rng.normal(size=(2000, 3)) * 3
    found = publish_predictions(spec, [prediction(list(row)) for row in logits])
    sure = np.array([one.certain for one in found])
    assert 0 < sure.sum() < len(sure)
    right = np.array([one.label for one in found]) == np.array(spec.decide(logits))
    assert right[sure].all()


def test_windows_of_a_text_are_published_each(head: Head) -> None:
    spec = ModelSpec.of("m", head)
    parts = (prediction([0.0, 0.0, 1.0]), prediction([60.0, 0.0, 0.0]))
    text = replace(parts[1], parts=parts)
    found = publish_predictions(spec, [text, prediction([0.0, 50.0, 0.0])])
    assert [one.label for one in found] == [head.labels[0], head.labels[1]]
