"""Stealing a model: the students learn what there is to learn, and the report has every policy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tqdm import tqdm

from secure_infer.heads import Head, Linear, Square
from secure_infer_benchmarks.extraction import Features, Options, agreement, measure, one_hot, stolen, table


def rows(count: int, seed: int, features: int = 12) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, features))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def head(*widths: int) -> Head:
    rng, layers = np.random.default_rng(3), []
    for i, (before, after) in enumerate(pairwise(widths)):
        layers += [Square()] * bool(i) + [Linear(rng.normal(size=(after, before)), 0.1 * rng.normal(size=after))]
    return Head(layers, labels=[f"{k}" for k in range(widths[-1])], input_bound=1.0, input_norm=1.0)


@pytest.mark.parametrize(("victim", "degree", "queries"), [(head(12, 4), 1, 26), (head(12, 6, 4), 2, 120)])
def test_logits_give_the_model_away_once_there_are_more_than_it_has_parameters(
    victim: Head, degree: int, queries: int
) -> None:
    x, fresh = rows(queries, 1), rows(400, 2)
    student = Features(x, degree)
    found = stolen([student], [student.of(fresh)], victim.evaluate(x), labels=False)
    assert agreement(found, victim.evaluate(fresh).argmax(axis=1)) > 0.98


def test_labels_alone_teach_less_than_logits_and_more_than_nothing() -> None:
    victim, x, fresh = head(12, 4), rows(200, 1), rows(1000, 2)
    truth = victim.evaluate(fresh).argmax(axis=1)
    student = Features(x, 1)
    labels = one_hot(victim.evaluate(x).argmax(axis=1), 4)
    found = agreement(stolen([student], [student.of(fresh)], labels, labels=True), truth)
    assert 0.6 < found < 0.99


def test_leave_one_out_errors_are_those_of_leaving_one_out() -> None:
    x, answers = rows(9, 1), np.random.default_rng(2).normal(size=(9, 2))
    student = Features(x, 1)
    _, error = student.ridge(answers)
    centred = answers - answers.mean(axis=0)
    kernel = 1 + x @ x.T
    by_hand = []
    for ridge in 10.0 ** np.arange(-13, 3) * student.values[0]:
        errors = []
        for i in range(9):
            rest = np.arange(9) != i
            weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(8), centred[rest])
            errors.append(centred[i] - kernel[i, rest] @ weights)
        by_hand.append(np.mean(np.square(errors)))
    assert error == pytest.approx(min(by_hand), rel=1e-3)


def test_the_report_has_every_policy_and_budget() -> None:
    victim, x = head(12, 5, 4), rows(90, 1)
    options = Options(queries=(10, 40), held_out=50)
    found = measure(victim, x, victim.evaluate(x).argmax(axis=1), options, tqdm(disable=True))
    assert len(found) == 7
    assert found["logits"]["honest"] == found["label-only"]["honest"] == 1.0
    assert all(row["agreement"].keys() == {"10", "40"} for row in found.values())
    text = table({"queries": [10, 40], "held_out_texts": 50, "heads": {"small": found}})
    assert "label-only" in text
