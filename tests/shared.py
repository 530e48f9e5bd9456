"""Helpers that many tests import."""

from __future__ import annotations

import numpy as np

from secure_infer.heads import Head, Linear


def linear_head(
    features: int, outputs: int, *, seed: int = 0, scale: float = 1.0, bound: float = 1.0, norm: float | None = 1.0
) -> Head:
    """A linear head with weights of that scale per row (L2) and small biases."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, features)) * scale / np.sqrt(features)
    labels = [f"class {k}" for k in range(max(2, outputs))]
    return Head([Linear(weight, rng.normal(size=outputs) / 10)], labels=labels, input_bound=bound, input_norm=norm)


def unit_rows(count: int, features: int, seed: int = 1) -> np.ndarray:
    """Rows of L2 norm one."""
    x = np.random.default_rng(seed).normal(size=(count, features))
    return x / np.linalg.norm(x, axis=1, keepdims=True)
