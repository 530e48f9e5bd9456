"""Layers: immutable, in float64, each a function of a batch of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_infer.errors import InvalidHead

Floats = NDArray[np.float64]
LARGEST = 1e30  # products of parameters stay finite


def _parameter(name: str, values: ArrayLike, ranks: tuple[int, ...]) -> Floats:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidHead(f"{name}: expected numbers, got {type(values).__name__}") from error
    if array.ndim not in ranks or array.size == 0:
        raise InvalidHead(
            f"{name}: expected a non-empty array of rank {' or '.join(map(str, ranks))}, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidHead(f"{name}: holds {np.count_nonzero(~np.isfinite(array))} values that are not finite")
    if np.abs(array).max() > LARGEST:
        raise InvalidHead(f"{name}: holds values beyond {LARGEST:g}; scale the model")
    array.setflags(write=False)
    return array


class Layer(ABC):
    """A map from rows (B, width_in) to rows (B, width_out)."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, x: Floats) -> Floats:
        """The rows after this layer."""

    def width_out(self, width_in: int) -> int:
        """The width after this layer; raises InvalidHead when it cannot follow `width_in`."""
        return width_in

    def arrays(self) -> dict[str, Floats]:
        """Parameters by name, as the artifact stores them."""
        return {}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Layer):
            return NotImplemented
        mine, theirs = self.arrays(), other.arrays()
        return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """y = x Wᵀ + b, with weight W of shape (out, in) and bias b of shape (out,)."""

    weight: Floats
    bias: Floats
    kind: ClassVar[str] = "linear"

    def __init__(self, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        w = _parameter("Linear.weight", weight, (2,))
        b = _parameter("Linear.bias", np.zeros(len(w)) if bias is None else bias, (1,))
        if len(w) != len(b):
            raise InvalidHead(f"Linear: weight {w.shape} needs a bias of shape ({len(w)},), got {b.shape}")
        object.__setattr__(self, "weight", w)
        object.__setattr__(self, "bias", b)

    def __call__(self, x: Floats) -> Floats:
        return x @ self.weight.T + self.bias

    def width_out(self, width_in: int) -> int:
        if width_in != self.weight.shape[1]:
            raise InvalidHead(f"Linear: weight {self.weight.shape} cannot follow a layer of width {width_in}")
        return int(self.weight.shape[0])

    def arrays(self) -> dict[str, Floats]:
        return {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True, eq=False)
class Polynomial(Layer):
    """y = c0 + c1 x + c2 x² + ... with ascending coefficients of shape (degree+1,), or (units, degree+1) one row a unit."""

    coefficients: Floats
    kind: ClassVar[str] = "polynomial"

    def __init__(self, coefficients: ArrayLike) -> None:
        object.__setattr__(self, "coefficients", _parameter("Polynomial.coefficients", coefficients, (1, 2)))

    @property
    def degree(self) -> int:
        return int(self.coefficients.shape[-1]) - 1

    def __call__(self, x: Floats) -> Floats:
        y = np.broadcast_to(self.coefficients[..., -1], x.shape).astype(np.float64)
        for power in range(self.degree - 1, -1, -1):  # Horner
            y = y * x + self.coefficients[..., power]
        return y

    def width_out(self, width_in: int) -> int:
        if self.coefficients.ndim == 2 and len(self.coefficients) != width_in:
            raise InvalidHead(f"Polynomial: {len(self.coefficients)} rows cannot follow a layer of width {width_in}")
        return width_in

    def arrays(self) -> dict[str, Floats]:
        return {"coefficients": self.coefficients}


@dataclass(frozen=True, eq=False)
class Square(Layer):
    """y = x²."""

    kind: ClassVar[str] = "square"

    def __call__(self, x: Floats) -> Floats:
        return x * x


@dataclass(frozen=True, eq=False)
class ReLU(Layer):
    """y = max(x, 0). In plaintext here; under encryption it needs the comparison protocols of MPC."""

    kind: ClassVar[str] = "relu"

    def __call__(self, x: Floats) -> Floats:
        return np.maximum(x, 0.0)


LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (Linear, Polynomial, Square, ReLU)}


def layer_from(kind: str, arrays: dict[str, Any]) -> Layer:
    """The layer of that kind with those parameters; raises InvalidHead for an unknown kind or wrong parameters."""
    if kind not in LAYERS:
        raise InvalidHead(f"unknown layer kind {kind!r}; this version knows {sorted(LAYERS)}")
    try:
        return LAYERS[kind](**arrays)
    except TypeError as error:
        raise InvalidHead(f"layer {kind!r} does not take the parameters {sorted(arrays)}") from error
