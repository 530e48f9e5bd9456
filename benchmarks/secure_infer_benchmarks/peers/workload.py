"""The heads that are compared with other software, and the file in which peers read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer import models
from secure_infer.heads import Head, Layer, Linear, Polynomial, ReLU, Square
from secure_infer_benchmarks.figures import shape
from secure_infer_benchmarks.synthetic import inputs, square_head, unit_norm_head

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Workload:
    """A head and the rows (B, d) that it is asked about."""

    name: str
    head: Head
    rows: Floats

    @property
    def shape(self) -> str:
        """For example 384 -> 64 -> 10."""
        return shape(self.head)

    def save(self, path: Path) -> None:
        """The file that peers read."""
        pairs, activation = dense(self.head.layers)
        arrays: dict[str, Any] = {"activation": activation}
        for i, (weight, bias) in enumerate(pairs, start=1):
            arrays |= {f"W{i}": weight, f"b{i}": bias}
        np.savez(path, rows=self.rows, logits=self.head.evaluate(self.rows), **arrays)


def dense(layers: Sequence[Layer]) -> tuple[list[tuple[Floats, Floats]], str]:
    """(weight, bias) of each linear layer, and what is between them: "relu", or "square" as `squared` makes it."""
    match layers:
        case [Linear() as first, ReLU(), Linear() as last]:
            return [(first.weight, first.bias), (last.weight, last.bias)], "relu"
    return squared(layers), "square"


def squared(layers: Sequence[Layer]) -> list[tuple[Floats, Floats]]:
    """(weight, bias) of one or two linear layers that answer alike with a plain square between them.

    a z² + b z + c = a (z + b/2a)² + c - b²/4a is exact and saves every peer a level; a must not be zero.
    """
    match layers:
        case [Linear() as only]:
            return [(only.weight, only.bias)]
        case [Linear() as first, Square(), Linear() as last]:
            return [(first.weight, first.bias), (last.weight, last.bias)]
        case [Linear() as first, Polynomial(degree=2) as activation, Linear() as last]:
            c, b, a = np.broadcast_to(activation.coefficients, (len(first.bias), 3)).T
            if a.all():
                bias = last.bias + last.weight @ (c - b * b / (4 * a))
                return [(first.weight, first.bias + b / (2 * a)), (last.weight * a, bias)]
    kinds = ", ".join(layer.kind for layer in layers)
    raise ValueError(f"peers evaluate linear, or linear, square or quadratic, linear; got {kinds}")


def workloads(quick: bool) -> list[Workload]:
    """The heads that are compared; few rows, because the slowest peer takes seconds for each."""
    heads = {
        "unit-norm-384-10": (unit_norm_head(384, 10), 2 if quick else 7),
        "square-384-64-10": (square_head(384, 64, 10), 1 if quick else 3),
        "icd10-chapter": (Head.load(models.path() / "icd10-chapter.head"), 1 if quick else 2),
    }
    return [Workload(name, head, inputs(head.features, count)) for name, (head, count) in heads.items()]
