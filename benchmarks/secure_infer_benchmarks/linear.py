"""The linear workload of published comparisons, and rows for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from secure_infer.heads import Head, Linear


def unit_norm_head(features: int, outputs: int) -> Head:
    """A synthetic head with unit-norm weight rows: the workload of published comparisons."""
    weight = np.random.default_rng(0).normal(size=(outputs, features))
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    return Head([Linear(weight)], labels=[f"class {k}" for k in range(outputs)], input_bound=1.0, input_norm=1.0)


def inputs(features: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows (count, features) of norm one."""
    x = np.random.default_rng(1).normal(size=(count, features))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
