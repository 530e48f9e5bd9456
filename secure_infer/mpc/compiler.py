"""From a head to a program and its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.errors import UnsupportedHead
from secure_infer.heads.head import Head
from secure_infer.heads.network import Hidden
from secure_infer.heads.task import Task
from secure_infer.mpc.evaluate import Tensor
from secure_infer.mpc.fit import Fit, fit
from secure_infer.mpc.precision import Fractions, used_exponents
from secure_infer.mpc.program import (
    Affine,
    Answers,
    Comparisons,
    Largest,
    Positive,
    Powers,
    Program,
    Rectify,
    Step,
    Weights,
)
from secure_infer.mpc.ring import Floats, encode
from secure_infer.mpc.stages import Stage, stages

DEFAULT_ERROR = 1e-3
RELATIVE_ERROR = 2.0**-10
"""Of the range: the most that is taken where the default cannot be had."""
FLOOD = 0.25
"""Part of the error wanted that noise takes up, where there are hidden layers to hide."""
MAX_CLASSES = 128
ERROR_EXPECTED = "a bound above 0 and below 1000000"


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program with the clear tensors of its affine steps."""

    program: Program
    tensors: tuple[Tensor, ...]


def error_bound(text: str) -> float:
    """A wanted bound on the logit error as people write it; raises ValueError unless it is ERROR_EXPECTED."""
    bound = float(text)
    if not 0 < bound < 1e6:
        raise ValueError(text)
    return bound


def compile_head(
    head: Head,
    *,
    error: float | None = None,
    weights: Weights = Weights.REPLICATED,
    answers: Answers = Answers.LOGITS,
    comparisons: Comparisons = Comparisons.TABLES,
) -> Compiled:
    """The program for a head. error: wanted bound on the logit error; by default 1e-3, or what can be had up to 2^-10 of the
    range.

    Raises UnsupportedHead, saying what would help, when no number of fraction bits keeps the error and leaves room.
    """
    label = answers is Answers.LABEL
    if label:
        _check_label(head)
    parts = stages(head)
    largest = float(parts[-1].bounds.outputs.max()) if parts[-1].network is not None else parts[-1].contract.bound
    wanted = DEFAULT_ERROR if error is None else error
    flood = 0.0 if label or _affine(parts) else FLOOD
    fitted, reason = fit(parts, (1 - flood) * wanted, label=label)
    while fitted is None and error is None and wanted < RELATIVE_ERROR * largest:
        wanted *= 4
        fitted, reason = fit(parts, (1 - flood) * wanted, label=label)
    if fitted is None:
        # An error as large as the logits themselves: where that is too little, no error helps.
        helps = wanted < largest and fit(parts, (1 - flood) * largest, label=label)[0] is not None
        advice = "ask for a larger --error, or train with a smaller range"
        raise UnsupportedHead(
            f"secret sharing: no fixed point keeps every logit within {wanted:.3g}: {reason}; "
            + (advice if helps else "scale the features, or train with stronger weight decay")
        )
    lowered = _Lowering(fitted)
    for index, part in enumerate(parts):
        lowered.add(part, last=index + 1 == len(parts), label=label)
    steps = lowered.steps
    if label:
        bits = head.task is Task.MULTILABEL or head.outputs == 1
        steps.append(Positive(head.outputs) if bits else Largest(head.outputs))
    program = Program(
        weights=weights,
        answers=answers,
        comparisons=comparisons,
        steps=tuple(steps),
        fraction=fitted.fractions.inputs,
        answer_fraction=lowered.fraction,
        answer_range=2.0 ** math.ceil(math.log2(max(fitted.largest_output + fitted.error, 2.0**-20))),
        error_bound=coarse(fitted.error + flood * wanted),
        flood=flood * wanted,
        failure_probability=coarse(fitted.failure, 1),
    )
    return Compiled(program, tuple(lowered.tensors))


def coarse(value: float, digits: int = 2) -> float:
    """`value` rounded up to so many significant digits: exact figures are functions of the weights."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{digits}g}")


def _affine(parts: Sequence[Stage]) -> bool:
    """Whether the head is an affine map, whose answers hold nothing but their logits."""
    return len(parts) == 1 and not parts[0].rectified and parts[0].network is not None and not parts[0].network.hidden


def _check_label(head: Head) -> None:
    if head.task is Task.REGRESSION:
        raise UnsupportedHead("label-only answers: a regression head has no labels; answer with logits")
    if head.outputs > MAX_CLASSES and head.task is Task.CLASSIFICATION:
        raise UnsupportedHead(f"label-only answers: expected at most {MAX_CLASSES} classes, got {head.outputs}")


class _Lowering:
    """Stages as steps and tensors; `fraction`: bits of the vector after the last of them."""

    def __init__(self, fitted: Fit) -> None:
        self._fitted, self._fractions = fitted, fitted.fractions
        self.fraction = fitted.fractions.inputs
        self.steps: list[Step] = []
        self.tensors: list[Tensor] = []

    def add(self, part: Stage, *, last: bool, label: bool) -> None:
        fractions: Fractions = self._fractions
        width = part.contract.features
        if part.network is not None:
            before: Hidden | None = None
            for layer in part.network.hidden:
                self._affine(layer.weight, np.zeros(layer.units), before, fractions.weights, fractions.state)
                self.steps.append(Powers(layer.units, used_exponents(layer), fractions.state))
                before = layer
            output, width = part.network.output, part.network.outputs
            if part.rectified:
                self._affine(output.weight, output.bias, before, fractions.weights, fractions.state)
            else:
                cut = self._fitted.label_fraction if last and label else None
                self._affine(output.weight, output.bias, before, fractions.last, cut)
        if part.rectified:
            self.steps.append(Rectify(width))

    def _affine(self, weight: Floats, bias: Floats, before: Hidden | None, bits: int, cut: int | None) -> None:
        """W x + b at `bits` fraction bits of W, truncated to `cut` bits unless that is more than there are."""
        if before is not None:
            weight = _absorbed(weight, before)
        product = self.fraction + bits
        truncate = 0 if cut is None else max(0, product - cut)
        self.steps.append(Affine(weight.shape[1], len(weight), len(self.tensors), truncate))
        self.tensors.append(Tensor(np.ascontiguousarray(encode(weight, bits).T), encode(bias, product)))
        self.fraction = product - truncate


def _absorbed(weight: Floats, before: Hidden) -> Floats:
    """What follows activations, as a matrix on their powers: coefficients times weights, exponent by exponent."""
    exponents: Sequence[int] = used_exponents(before)
    return np.concatenate([weight * before.coefficients[:, e] for e in exponents], axis=1)
