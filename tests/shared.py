"""Helpers that many tests import."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from secure_infer.ckks.costs import SCALAR, Operation, Step, UnitCosts
from secure_infer.heads import Head, Layer, Linear, Square


def linear_head(
    features: int, outputs: int, *, seed: int = 0, scale: float = 1.0, bound: float = 1.0, norm: float | None = 1.0
) -> Head:
    """A linear head with weights of that scale per row (L2) and small biases."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, features)) * scale / np.sqrt(features)
    labels = [f"class {k}" for k in range(max(2, outputs))]
    return Head([Linear(weight, rng.normal(size=outputs) / 10)], labels=labels, input_bound=bound, input_norm=norm)


def hidden_head(
    widths: tuple[int, ...],
    activation: Layer | None = None,
    *,
    seed: int = 0,
    bound: float = 1.0,
    norm: float | None = 1.0,
    public_layers: int = 0,
) -> Head:
    """A head with hidden layers. widths: features, hidden layers, outputs; the first layer's rows have norm about one.

    activation: after every linear layer but the last, a square by default.
    """
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    for width, units in pairwise(widths):
        layers += [Linear(rng.normal(size=(units, width)) / np.sqrt(width), rng.normal(size=units) / 10)]
        layers += [activation or Square()]
    labels = [f"class {k}" for k in range(max(2, widths[-1]))]
    return Head(layers[:-1], labels=labels, input_bound=bound, input_norm=norm, public_layers=public_layers)


def flat_costs(seconds: float = 1e-4, element: float = 1e-9) -> UnitCosts:
    """Every ring operation takes `seconds` at N = 8192 with one prime, every element `element`."""
    ring = {Step(operation, 8192, 1): seconds for operation in Operation if operation not in SCALAR}
    return UnitCosts(ring | {Step(operation): element for operation in SCALAR})


def unit_rows(count: int, features: int, seed: int = 1) -> np.ndarray:
    """Rows of L2 norm one."""
    x = np.random.default_rng(seed).normal(size=(count, features))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what another thread or process does; longer than it ever takes on a machine with much else to do."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
