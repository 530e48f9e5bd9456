"""Whether distillation helps: the same students trained in other ways, and intervals for the differences.

Nothing here chooses anything. It runs after all settings are fixed and only reads the test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.distill import train
from secure_infer.distill.evaluate import Classes, Floats
from secure_infer.distill.ranges import logit_range
from secure_infer.heads import Head, Layer

RESAMPLES = 4000

HARD, TAUGHT, SHIPPED = "labels only", "distilled", "distilled, with unlabelled text"
"""How a student learned: the three ways of `quadratic_students`."""


@dataclass(frozen=True)
class Student:
    """One trained student on the test rows: logits (B, K). range: its R on inputs of unit norm."""

    way: str
    seed: int
    logits: Floats
    range: float


def quadratic_students(
    rows: train.Rows,
    taught: Floats,
    test: NDArray[np.float32],
    settings: train.Settings,
    shipped: Sequence[Layer],
    step: train.Step,
) -> list[Student]:
    """`settings.students` seeds of the quadratic student in each of three ways, the shipped one among them.

    All have the same settings and epochs. The ways differ in what they learn from: the labels alone; labels and teachers
    on the labelled rows; labels and teachers, and the teachers alone on unlabelled rows of training categories.
    """
    labelled = train.Rows(rows.x[: len(rows.y)], rows.y, rows.classes)
    ways = {
        HARD: (labelled, taught[: len(rows.y)], replace(settings, quadratic_hard=1.0)),
        TAUGHT: (labelled, taught[: len(rows.y)], settings),
        SHIPPED: (rows, taught, settings),
    }
    students = []
    total = len(ways) * settings.students
    for way, (from_rows, answers, how) in ways.items():
        for index in range(settings.students):
            seed = settings.seed + 100 * index
            layers: Sequence[Layer] = shipped
            if (way, index) != (SHIPPED, 0):
                layers = train.quadratic(from_rows, answers, replace(how, seed=seed), lambda *_: None)
            students.append(_student(way, seed, layers, test))
            step(len(students), total)
    return students


def linear_students(
    rows: train.Rows,
    taught: Floats,
    test: NDArray[np.float32],
    settings: train.Settings,
    shipped: Sequence[Layer],
    step: train.Step,
) -> list[Student]:
    """The linear student on labels alone (the shipped one) and distilled as the quadratic one is; convex, so one seed."""
    distilled = train.linear(rows, taught, replace(settings, linear_hard=settings.quadratic_hard), step)
    return [
        _student(HARD, settings.seed, shipped, test),
        _student(TAUGHT, settings.seed, distilled, test),
    ]


def summary(students: Sequence[Student], classes: Classes) -> list[dict[str, Any]]:
    """One entry a way: seeds, and mean and standard deviation over them of test accuracy and macro-F1, mean of R."""
    from sklearn.metrics import f1_score

    entries = []
    for way in dict.fromkeys(student.way for student in students):
        of_way = [student for student in students if student.way == way]
        answers = [student.logits.argmax(axis=1) for student in of_way]
        accuracy = [float((answer == classes).mean()) for answer in answers]
        macro = [float(f1_score(classes, answer, average="macro")) for answer in answers]
        entries.append(
            {
                "way": way,
                "seeds": [student.seed for student in of_way],
                "accuracy": [round(value, 5) for value in accuracy],
                "accuracy_mean": round(float(np.mean(accuracy)), 5),
                "accuracy_sd": _deviation(accuracy),
                "macro_f1_mean": round(float(np.mean(macro)), 5),
                "macro_f1_sd": _deviation(macro),
                "range_mean": round(float(np.mean([student.range for student in of_way])), 4),
            }
        )
    return entries


def difference(
    students: Sequence[Student], better: str, worse: str, classes: Classes, groups: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Accuracy of `better` less that of `worse`, each the mean over its seeds, with paired bootstrap intervals (95%).

    `by_text` resamples test rows. `by_category` resamples whole `groups` (B,), which is the wider and the fairer one:
    texts of one category are right or wrong together.
    """
    right = {
        way: np.mean([s.logits.argmax(axis=1) == classes for s in students if s.way == way], axis=0)
        for way in (better, worse)
    }
    gain = right[better] - right[worse]
    return {
        "of": better,
        "over": worse,
        "difference": round(float(gain.mean()), 5),
        "by_text": paired_bootstrap(gain, np.arange(len(gain)), seed),
        "by_category": paired_bootstrap(gain, groups, seed),
    }


def paired_bootstrap(gain: Floats, groups: NDArray[np.int64], seed: int) -> list[float]:
    """The 95% percentile interval [low, high] of the mean of `gain` (B,), resampling the groups (B,) of its rows."""
    _, index = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(index, gain), np.bincount(index)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = generator.integers(len(sums), size=len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    return [round(float(edge), 5) for edge in np.quantile(means, [0.025, 0.975])]


def _deviation(values: list[float]) -> float:
    """Sample standard deviation; zero for a single value."""
    return round(float(np.std(values, ddof=1)), 5) if len(values) > 1 else 0.0


def _student(way: str, seed: int, layers: Sequence[Layer], x: NDArray[np.float32]) -> Student:
    outputs = len(layers[-1].arrays()["bias"])
    head = Head(layers, labels=[str(k) for k in range(outputs)], input_bound=1.0, input_norm=1.0)
    return Student(way, seed, head.evaluate(x), logit_range(head))
