"""Activations as polynomials: least squares over the range that the activation's input was measured to have.

A homomorphic scheme evaluates sums and products; a smooth or piecewise activation is replaced by the polynomial that is
closest to it where its inputs fall, not near zero as a Taylor series would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_infer.errors import InvalidInput
from secure_infer.heads import Polynomial

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]

MAX_DEGREE = 4
POINTS = 4097
"""Grid points, evenly spaced over the range."""


def relu(x: Floats) -> Floats:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def gelu(x: Floats) -> Floats:
    """x Phi(x), with the normal distribution's own Phi and not its tanh approximation (Hendrycks and Gimpel, 2016)."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


FUNCTIONS: dict[str, Function] = {"relu": relu, "gelu": gelu, "sigmoid": sigmoid, "tanh": np.tanh}


@dataclass(frozen=True)
class Fit:
    """`layer` stands in for the function on [low, high].

    max_error: largest |difference| there. rms_error: root of the mean squared difference, weighted as the fit was.
    """

    layer: Polynomial
    low: float
    high: float
    max_error: float
    rms_error: float


def fit_polynomial(
    function_or_name: Function | str, low: float, high: float, degree: int, weights: ArrayLike | None = None
) -> Fit:
    """The polynomial of at most that degree with the least mean squared error on [low, high].

    function_or_name: relu, gelu, sigmoid or tanh, or a function of a float64 array that acts on each element.
    low, high: the range, as measured on the layer's inputs. degree: 0 to 4.
    weights: how often inputs fall where: non-negative, shape (bins,), over equal bins of the range, as
    `np.histogram(inputs, bins, (low, high))[0]` gives it. None: evenly.

    Errors are measured on the layer returned, over 4097 points. Raises InvalidInput, saying what was expected.
    """
    if isinstance(function_or_name, str) and function_or_name not in FUNCTIONS:
        raise InvalidInput(
            f"function: got {function_or_name!r}; expected one of {', '.join(FUNCTIONS)}, or a function of an array"
        )
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInput(f"range: got low {low!r}, high {high!r}; expected finite numbers with low < high")
    if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= MAX_DEGREE:
        raise InvalidInput(f"degree: got {degree!r}; expected an integer from 0 to {MAX_DEGREE}")
    x = np.linspace(low, high, POINTS)
    weight = _weights(weights, degree)
    y = _values(FUNCTIONS[function_or_name] if isinstance(function_or_name, str) else function_or_name, x)
    # Fitted in Legendre polynomials on [-1, 1], where the least squares problem is well conditioned.
    series = np.polynomial.Legendre.fit(x, y, degree, domain=[low, high], w=np.sqrt(weight))
    power = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1])
    coefficients = np.zeros(degree + 1)
    coefficients[: len(power.coef)] = power.coef
    layer = Polynomial(coefficients)
    difference = layer(x) - y
    return Fit(
        layer=layer,
        low=float(low),
        high=float(high),
        max_error=float(np.abs(difference).max()),
        rms_error=float(np.sqrt((weight * difference**2).sum() / weight.sum())),
    )


def _weights(weights: ArrayLike | None, degree: int) -> Floats:
    if weights is None:
        return np.ones(POINTS)
    try:
        bins = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"weights: got {type(weights).__name__}; expected numbers, one a bin") from error
    if bins.ndim != 1 or not 1 <= bins.size < POINTS:
        raise InvalidInput(f"weights: got shape {bins.shape}; expected (bins,), 1 to {POINTS - 1} bins of the range")
    if not np.isfinite(bins).all() or (bins < 0).any():
        raise InvalidInput(
            "weights: got negative or infinite entries or NaN; expected how often inputs fall in each bin"
        )
    spread = bins[np.minimum(np.arange(POINTS) * bins.size // (POINTS - 1), bins.size - 1)]
    if np.count_nonzero(spread) <= degree:
        raise InvalidInput(
            f"weights: {np.count_nonzero(spread)} points of the range have any weight; degree {degree} needs more than that"
        )
    return np.asarray(spread / spread.max())


def _values(function: Function, x: Floats) -> Floats:
    y = np.asarray(function(x))
    if y.shape != x.shape or y.dtype.kind not in "fiu":
        raise InvalidInput(
            f"function: for an array of shape {x.shape} it returned shape {y.shape}, dtype {y.dtype}; expected the same "
            "shape and real numbers"
        )
    if not np.isfinite(y).all():
        raise InvalidInput("function: it is not finite on the whole range; choose a smaller one")
    return y.astype(np.float64)
