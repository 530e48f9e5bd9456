"""A student of a user's own teacher: small enough to evaluate under encryption, held against the teacher on held-out rows.

It learns from the teacher's probabilities alone (Hinton, Vinyals and Dean, 2015); labels, where there are any, only
measure what the change costs. Features are standardised for training and the standardisation is folded into the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.plan import DEFAULT_SMUDGING
from secure_infer.distill import train
from secure_infer.distill.evaluate import Classes, Floats, log_softmax
from secure_infer.distill.ranges import logit_range, with_margin
from secure_infer.distill.table import Table
from secure_infer.distill.teachers import Teacher
from secure_infer.distill.tradeoff import cost
from secure_infer.errors import InvalidInput, MissingExtra, SettingsError
from secure_infer.heads import Head, InputContract, Layer, Linear

HELD_OUT, VALIDATION = 0.2, 0.1
"""Shares of the rows: for the report, and for the choice of the penalty."""

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
TOLERATED = 0.005
"""Of these penalties on the standardised weights, the linear student takes the largest that agrees with the teacher
nearly as often on validation rows as the best one does: a larger penalty is a smaller range."""

MAX_HIDDEN = 4096
_SCALE = 20.0  # `train.quadratic` multiplies its inputs by as much


@dataclass(frozen=True)
class Options:
    """hidden: units of the quadratic student, 0 for a linear one. input_bound: largest |x_i| to accept, None: from the data."""

    hidden: int = 0
    input_bound: float | None = None
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class _Scaling:
    """z = (x - mean) * factor; factor 0 for features that do not vary."""

    mean: Floats
    factor: Floats

    @classmethod
    def of(cls, x: Floats) -> _Scaling:
        deviation = x.std(axis=0)
        alive = deviation > 1e-9 * np.maximum(1e-300, np.abs(x).max(axis=0))
        return cls(x.mean(axis=0), np.where(alive, 1 / np.where(alive, deviation, 1.0), 0.0))

    def __call__(self, x: Floats) -> Floats:
        return (x - self.mean) * self.factor

    def folded(self, layer: Linear, divisor: float = 1.0) -> Linear:
        """`layer` of z / divisor as a layer of x."""
        weight = layer.weight * self.factor / divisor
        return Linear(weight, layer.bias - weight @ self.mean)


def distill(teacher: Teacher, table: Table, options: Options, step: train.Step) -> Head:
    """The student as a head; what it cost is among its facts (`summary` puts it in words).

    Raises SettingsError for options, InvalidInput for rows that do not fit the teacher, the labels or the bound,
    ModuleNotFoundError without torch when hidden > 0, MissingExtra without scipy otherwise.
    """
    if not 0 <= options.hidden <= MAX_HIDDEN:
        raise SettingsError(f"--hidden: expected 0 (linear) to {MAX_HIDDEN} units, got {options.hidden}")
    contract = _contract(teacher, table.x, options.input_bound)
    logits = teacher.logits(table.x)
    width = logits.shape[1]
    names = teacher.head.labels if teacher.head else tuple(f"class {k}" for k in range(max(2, width)))
    classes = _classes(table.labels, names)
    two = logits if width > 1 else np.concatenate([np.zeros_like(logits), logits], axis=1)
    order = np.random.default_rng(options.seed).permutation(len(table.x))
    test, validation, rest = np.split(
        order, [math.ceil(HELD_OUT * len(order)), math.ceil(HELD_OUT * len(order)) + math.ceil(VALIDATION * len(order))]
    )
    scaling = _Scaling.of(table.x[rest])
    z, targets = scaling(table.x), np.exp(log_softmax(two))
    penalty: float | None = None
    layers: tuple[Layer, ...]
    if options.hidden:
        fit = np.concatenate([rest, validation])
        layers = _quadratic(scaling, z[fit], two[fit], options, width, step)
    else:
        linear, penalty = _chosen(z, targets, rest, validation, step)
        layers = (_as_wide(scaling.folded(linear), width),)
    head = Head(
        layers,
        labels=names,
        input_bound=contract.bound,
        input_norm=contract.norm,
        embedder=teacher.head.embedder if teacher.head else None,
        temperature=teacher.head.temperature.tolist() if teacher.head else 1.0,
    )
    taught, answered = two.argmax(axis=1), _answers(head.evaluate(table.x))
    facts: dict[str, Any] = {
        "task": "distilled from a teacher of the user's own",
        "teacher": teacher.name,
        "seed": options.seed,
        "hidden": options.hidden,
        "penalty": penalty,
        "rows": {"train": len(rest), "validation": len(validation), "test": len(test)},
        "agreement": _share(answered[test] == taught[test]),
        "commonest_answer": _share(taught[test] == np.bincount(taught[test]).argmax()),
        "accuracy": None,
        "range": round(logit_range(head), 4),
        "plan": None,
        "smudging_bits": None,
    }
    if classes is not None:
        facts["accuracy"] = {
            "teacher": _share(taught[test] == classes[test]),
            "student": _share(answered[test] == classes[test]),
        }
    affine = head.as_linear()
    if affine is not None:
        facts |= cost(affine, contract, smudging=DEFAULT_SMUDGING)
    return Head(
        layers,
        labels=names,
        input_bound=contract.bound,
        input_norm=contract.norm,
        embedder=head.embedder,
        temperature=head.temperature.tolist(),
        facts=facts,
    )


def summary(head: Head) -> str:
    """What `distill` found out, in words, a line a figure."""
    facts: dict[str, Any] = head.facts
    rows = facts["rows"]["test"]
    lines = [
        f"agreement with the teacher  {facts['agreement']:.1%} of {rows} held-out rows "
        f"(always its commonest answer: {facts['commonest_answer']:.1%})"
    ]
    if facts["accuracy"] is not None:
        taught, learned = facts["accuracy"]["teacher"], facts["accuracy"]["student"]
        lines.append(
            f"accuracy                    teacher {taught:.1%}, student {learned:.1%} ({learned - taught:+.1%})"
        )
    norm = "" if head.contract.norm is None else f", norm {head.contract.norm:g}"
    lines.append(f"accepts                     {head.features} features, none above {head.contract.bound:g}{norm}")
    lines.append(f"largest possible logit      {facts['range']:.4g}")
    if facts["plan"] is not None:
        lines.append(
            f"plan                        {facts['plan']}, {facts['smudging_bits']} smudging bits, logit error at most "
            f"{facts['error_bound']:.1e}, {facts['bytes_up']:,} bytes up, {facts['bytes_down']:,} down"
        )
    elif facts["hidden"]:
        lines.append(
            "plan                        none: plans are for heads without hidden layers; `--hidden 0` makes one"
        )
    else:
        lines.append(
            f"plan                        none with {DEFAULT_SMUDGING} smudging bits: the range is too large; scale the "
            "features alike, or accept less (--input-bound)"
        )
    return "".join(f"{line}\n" for line in lines)


def _contract(teacher: Teacher, x: Floats, bound: float | None) -> InputContract:
    """What the student accepts: as told; else what a teacher that is a head accepts; else the data with a margin."""
    if bound is not None and not (math.isfinite(bound) and bound > 0):
        raise SettingsError(f"--input-bound: expected a positive number, got {bound:g}")
    if bound is None and teacher.head is not None:
        teacher.head.contract.check(x)
        return teacher.head.contract
    largest = float(np.abs(x).max())
    if largest == 0:
        raise InvalidInput("--data: every number is zero; expected rows as the model takes them")
    if bound is not None:
        over = (np.abs(x) > bound).any(axis=1)
        if over.any():
            raise InvalidInput(
                f"--input-bound {bound:g}: {over.sum()} of {len(x)} rows exceed it; raise it, or leave the rows out"
            )
        return InputContract(x.shape[1], bound)
    return InputContract(x.shape[1], with_margin(largest), with_margin(float(np.linalg.norm(x, axis=1).max())))


def _classes(labels: tuple[str, ...] | None, names: tuple[str, ...]) -> Classes | None:
    """Labels as class numbers: by name where all are names of the teacher's, else as numbers 0 to K - 1."""
    if labels is None:
        return None
    index = {name: k for k, name in enumerate(names)}
    if not set(labels) <= index.keys():
        index = {str(k): k for k in range(len(names))}
    unknown = sorted(set(labels) - index.keys())
    if unknown:
        raise InvalidInput(
            f"labels: {len(unknown)} are not the teacher's classes; expected numbers 0 to {len(names) - 1}, or the names "
            f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        )
    return np.array([index[label] for label in labels])


def _chosen(
    z: Floats, targets: Floats, rest: NDArray[np.int64], validation: NDArray[np.int64], step: train.Step
) -> tuple[Linear, float]:
    """The linear student of the largest tolerable penalty, and that penalty; it maps z to one logit a class."""
    taught = targets[validation].argmax(axis=1)
    tried = []
    for index, penalty in enumerate(PENALTIES):
        student = _linear(z[rest], targets[rest], penalty)
        tried.append((float((student(z[validation]).argmax(axis=1) == taught).mean()), student, penalty))
        step(index + 1, len(PENALTIES))
    best = max(agreement for agreement, _, _ in tried)
    return next((student, penalty) for agreement, student, penalty in tried if agreement >= best - TOLERATED)


def _linear(z: Floats, targets: Floats, penalty: float) -> Linear:
    """Least mean cross-entropy against `targets` (n, K) plus penalty |W|²: convex, by L-BFGS."""
    try:
        from scipy.optimize import minimize
    except ModuleNotFoundError as error:
        raise MissingExtra("scipy is not installed; install it with: pip install 'secure-infer[train]'") from error
    count, features = z.shape
    classes = targets.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weight, bias = flat[: classes * features].reshape(classes, features), flat[classes * features :]
        logs = log_softmax(z @ weight.T + bias)
        slope = (np.exp(logs) - targets) / count
        gradient = np.concatenate([(slope.T @ z + 2 * penalty * weight).ravel(), slope.sum(axis=0)])
        return float(-(targets * logs).sum() / count + penalty * (weight**2).sum()), gradient

    found = minimize(loss, np.zeros(classes * (features + 1)), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weight, bias = found[: classes * features].reshape(classes, features), found[classes * features :]
    # What all logits share changes no answer, yet takes up range.
    return Linear(weight - weight.mean(axis=0), bias - bias.mean())


def _quadratic(
    scaling: _Scaling, z: Floats, logits: Floats, options: Options, width: int, step: train.Step
) -> tuple[Layer, ...]:
    rows = train.Rows((z / _SCALE).astype(np.float32), logits.argmax(axis=1), classes=logits.shape[1])
    batches = max(1, len(z) // 256)
    settings = replace(
        train.Settings(seed=options.seed, threads=options.threads),
        distill_temperature=1.0,
        quadratic_hard=0.0,
        quadratic_units=options.hidden,
        quadratic_epochs=min(2000, max(30, math.ceil(2000 / batches))),  # about 2,000 steps for small data
        quadratic_penalty=1e-3,
        quadratic_dropout=0.0,
    )
    first, square, last = train.quadratic(rows, logits, settings, step)
    return scaling.folded(first, _SCALE), square, _as_wide(last, width)


def _as_wide(layer: Linear, width: int) -> Linear:
    """Two logits as the one of a binary head, where the teacher has one."""
    if width > 1:
        return layer
    return Linear(layer.weight[1:] - layer.weight[:1], layer.bias[1:] - layer.bias[:1])


def _answers(logits: Floats) -> Classes:
    return logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)


def _share(hits: NDArray[np.bool_]) -> float:
    return round(float(hits.mean()), 5)
