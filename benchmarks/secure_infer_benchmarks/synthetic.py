"""Heads and rows that are made up, from fixed seeds: the same in every suite."""

from __future__ import annotations

from typing import Any

import numpy as np

from secure_infer.heads import Head, Layer, Linear, Square


def unit_norm_head(features: int, outputs: int) -> Head:
    """A synthetic head with unit-norm weight rows: the workload of published comparisons."""
    weight = np.random.default_rng(0).normal(size=(outputs, features))
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    return Head([Linear(weight)], labels=[f"class {k}" for k in range(outputs)], input_bound=1.0, input_norm=1.0)


def square_head(features: int, hidden: int, outputs: int) -> Head:
    """A synthetic head with one squared hidden layer, as `hidden_head` makes it."""
    return hidden_head(features, hidden, outputs, Square())


def hidden_head(features: int, hidden: int, outputs: int, activation: Layer) -> Head:
    """A synthetic head with one hidden layer, weights N(0, 1)/sqrt(fan-in), biases N(0, 0.1²)."""
    rng = np.random.default_rng(0)
    first = Linear(rng.normal(size=(hidden, features)) / np.sqrt(features), rng.normal(size=hidden) / 10)
    last = Linear(rng.normal(size=(outputs, hidden)) / np.sqrt(hidden), rng.normal(size=outputs) / 10)
    labels = [f"class {k}" for k in range(outputs)]
    return Head([first, activation, last], labels=labels, input_bound=1.0, input_norm=1.0)


def inputs(features: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows (count, features) of norm one."""
    x = np.random.default_rng(1).normal(size=(count, features))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
