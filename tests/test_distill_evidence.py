"""The figures of the cards: temperatures, abstention, intervals, what a head costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secure_infer.distill import calibrate, evaluate, evidence, tradeoff
from secure_infer.heads import InputContract, Linear


def test_temperature_undoes_a_scale() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(20_000, 5))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from softmax(logits)
    assert evaluate.fit_temperature(logits * 4, classes) == pytest.approx(4, rel=0.05)


def _drawn(rng: np.random.Generator, temperatures: np.ndarray[Any, Any], count: int) -> tuple[Any, Any]:
    """Centred logits, and classes drawn from softmax(logits / temperatures)."""
    logits = 3 * rng.normal(size=(count, len(temperatures)))
    return logits, (logits / temperatures + rng.gumbel(size=logits.shape)).argmax(axis=1)


def test_temperatures_per_class_are_recovered_where_classes_need_them() -> None:
    true = np.array([0.7, 1.0, 1.9, 1.2])
    logits, classes = _drawn(np.random.default_rng(4), true, 20_000)
    chosen = calibrate.calibrate(logits, classes, np.arange(len(classes)) % 97, seed=1)
    np.testing.assert_allclose(chosen.temperature, true, rtol=0.08)
    assert chosen.per_class_likelihood < chosen.scalar_likelihood


def test_one_temperature_is_the_fallback() -> None:
    logits, classes = _drawn(np.random.default_rng(5), np.full(12, 1.5), 250)
    chosen = calibrate.calibrate(logits, classes, np.arange(len(classes)), seed=1)
    assert chosen.temperature == evaluate.fit_temperature(logits, classes)
    assert chosen.per_class_likelihood >= chosen.scalar_likelihood


def test_the_abstention_threshold_reaches_its_target() -> None:
    rng = np.random.default_rng(6)
    confident = rng.uniform(size=5000)
    right = rng.uniform(size=5000) < confident
    threshold = calibrate.abstention_threshold(confident, right, 0.85)
    assert threshold == pytest.approx(0.7, abs=0.05)
    assert right[confident >= threshold].mean() >= 0.85 > right[confident >= threshold - 0.005].mean()
    assert calibrate.abstention_threshold(confident, np.ones(5000, dtype=bool), 0.85) == 0.0
    assert calibrate.abstention_threshold(confident, np.zeros(5000, dtype=bool), 0.85) is None


def test_bootstrap_intervals_cover_and_groups_widen_them() -> None:
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(200), 10)
    gain = 0.02 + rng.normal(size=200).repeat(10) * 0.1
    by_row = evidence.paired_bootstrap(gain, np.arange(len(gain)), 1)
    by_group = evidence.paired_bootstrap(gain, groups, 1)
    error = gain.reshape(200, 10).mean(axis=1).std(ddof=1) / np.sqrt(200)
    assert by_group[1] - by_group[0] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert by_row[1] - by_row[0] < 0.5 * (by_group[1] - by_group[0])
    assert by_row[0] < gain.mean() < by_row[1]
    assert by_row == evidence.paired_bootstrap(gain, np.arange(len(gain)), 1)


def test_differences_are_paired_over_the_same_rows() -> None:
    logits = np.eye(3)[np.array([0, 1, 2, 0])]
    students = [evidence.Student("a", 1, logits, 1.0), evidence.Student("b", 1, np.roll(logits, 1, axis=1), 3.0)]
    found = evidence.difference(students, "a", "b", np.array([0, 1, 2, 1]), np.arange(4), 1)
    assert found["difference"] == 0.5
    assert found["by_text"][0] <= 0.5 <= found["by_text"][1]
    assert [entry["accuracy_mean"] for entry in evidence.summary(students, np.array([0, 1, 2, 1]))] == [0.75, 0.25]


def test_recall_and_precision_by_class() -> None:
    logits = np.eye(3)[np.array([0, 0, 1, 1])]
    found = evaluate.by_class(logits, np.array([0, 1, 1, 1]), ["a", "b", "c"])
    assert [(e["rows"], e["accuracy"], e["precision"]) for e in found] == [(1, 1, 0.5), (3, 0.66667, 1), (0, 0, 0)]


def test_the_cost_of_a_head_that_nothing_can_evaluate_is_its_range() -> None:
    found = tradeoff.cost(Linear(np.full((1, 4), 1e30)), InputContract(4, 1.0))
    assert found["plan"] is None
    assert found["range"] == pytest.approx(4e30)
