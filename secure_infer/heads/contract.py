"""What a head accepts as input: the bound every encoding, range and error figure rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidHead, InvalidInput

NORM_TOLERANCE = 1e-3
"""Relative slack on `norm`, for embeddings normalised in float32 (or int8 models)."""


def rows(x: Any, features: int) -> NDArray[np.float64]:
    """`x` as a finite float64 array (B, features); raises InvalidInput on rank, width, dtype, emptiness, NaN, infinity."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"input: expected real numbers (float32 or float64), got dtype {array.dtype}")
    if array.ndim != 2:
        hint = "; for one record pass x[None, :]" if array.ndim == 1 else ""
        raise InvalidInput(
            f"input: expected rank 2, shape (B, {features}), got rank {array.ndim}, shape {array.shape}{hint}"
        )
    if array.shape[1] != features:
        raise InvalidInput(f"input: expected {features} features a row, got {array.shape[1]} (shape {array.shape})")
    if array.shape[0] == 0:
        raise InvalidInput("input: the batch is empty; expected at least one row")
    array = array.astype(np.float64, copy=False)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise InvalidInput(f"input: {bad.sum()} of {len(array)} rows hold NaN or infinity, first at row {bad.argmax()}")
    return array


@dataclass(frozen=True)
class InputContract:
    """`bound`: largest |x_i| accepted. `norm`: largest L2 norm of a row accepted (within NORM_TOLERANCE), or None."""

    features: int
    bound: float
    norm: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("input_bound", self.bound), ("input_norm", self.norm)):
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InvalidHead(f"{name}: expected a positive finite number, got {value!r}")

    @property
    def largest_norm(self) -> float:
        """The largest L2 norm that passes `check`, tolerance included."""
        by_bound = self.bound * math.sqrt(self.features)
        return by_bound if self.norm is None else min(by_bound, self.norm * (1 + NORM_TOLERANCE))

    def functional_bound(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per row of `weights` (..., features): the largest |w·x| over every accepted x (Hölder, both norms)."""
        return np.asarray(
            np.minimum(self.bound * np.abs(weights).sum(-1), self.largest_norm * np.linalg.norm(weights, axis=-1))
        )

    def check(self, x: Any) -> NDArray[np.float64]:
        """`x` as float64 (B, features) when it keeps the contract; raises InvalidInput otherwise, naming rows, not values."""
        array = rows(x, self.features)
        over = np.abs(array).max(axis=1) > self.bound
        if over.any():
            raise InvalidInput(
                f"input: {over.sum()} of {len(array)} rows exceed the head's bound |x_i| <= {self.bound:g}, "
                f"first at row {over.argmax()}; scale the features as the head was trained, or clip them"
            )
        if self.norm is not None:
            over = np.linalg.norm(array, axis=1) > self.largest_norm
            if over.any():
                raise InvalidInput(
                    f"input: {over.sum()} of {len(array)} rows exceed the head's L2 norm {self.norm:g} "
                    f"(tolerance {NORM_TOLERANCE:g}), first at row {over.argmax()}; normalise the embeddings"
                )
        return array
