"""Activations as polynomials: least squares, exact where it can be, drawn to where inputs fall."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.distill.polynomial import FUNCTIONS, fit_polynomial
from secure_infer.errors import InvalidInput

RANGES = st.tuples(st.floats(-20, 19), st.floats(0.1, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(deadline=None, max_examples=30)
@given(bounds=RANGES, degree=st.integers(0, 4), name=st.sampled_from(sorted(FUNCTIONS)), data=st.data())
def test_no_other_polynomial_is_closer(
    bounds: tuple[float, float], degree: int, name: str, data: st.DataObject
) -> None:
    fit = fit_polynomial(name, *bounds, degree)
    assert fit.layer.degree == degree
    assert fit.rms_error <= fit.max_error + 1e-12
    x = np.linspace(*bounds, 4097)
    difference = fit.layer(x) - FUNCTIONS[name](x)
    assert np.abs(difference).max() == pytest.approx(fit.max_error)
    u = 2 * (x - bounds[0]) / (bounds[1] - bounds[0]) - 1
    change = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=degree + 1, max_size=degree + 1)))
    moved = difference + np.polynomial.legendre.legval(u, change)
    assert np.sqrt((moved**2).mean()) >= fit.rms_error - 1e-9


@settings(deadline=None, max_examples=30)
@given(coefficients=st.lists(st.floats(-3, 3), min_size=1, max_size=5), bounds=RANGES)
def test_polynomials_are_found_again(coefficients: list[float], bounds: tuple[float, float]) -> None:
    fit = fit_polynomial(lambda x: np.polynomial.polynomial.polyval(x, coefficients), *bounds, len(coefficients) - 1)
    largest = max(1.0, *np.abs(bounds)) ** (len(coefficients) - 1)
    assert fit.max_error <= 1e-9 * 3 * 5 * largest


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(sorted(FUNCTIONS)), bounds=RANGES)
def test_a_higher_degree_is_no_worse(name: str, bounds: tuple[float, float]) -> None:
    errors = [fit_polynomial(name, *bounds, degree).rms_error for degree in range(5)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))


def test_weights_draw_the_fit_to_where_inputs_fall() -> None:
    inputs = np.random.default_rng(2).normal(size=10_000)
    bins = np.histogram(inputs, 64, (-8, 8))[0]
    even, weighted = fit_polynomial("relu", -8, 8, 2), fit_polynomial("relu", -8, 8, 2, bins)

    def error(layer: Any) -> float:
        return float(np.sqrt(((layer(inputs) - np.maximum(inputs, 0)) ** 2).mean()))

    assert error(weighted.layer) < 0.5 * error(even.layer)
    assert error(weighted.layer) == pytest.approx(weighted.rms_error, rel=0.1)
    assert weighted.max_error > even.max_error


def test_known_fits() -> None:
    relu = fit_polynomial("relu", -1, 1, 2).layer.coefficients
    np.testing.assert_allclose(relu, [3 / 32, 1 / 2, 15 / 32], atol=1e-3)  # the closed form of least squares
    np.testing.assert_allclose(fit_polynomial("tanh", -3, 3, 3).layer.coefficients[::2], 0, atol=1e-9)
    assert FUNCTIONS["sigmoid"](np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(FUNCTIONS["gelu"](np.array([-1.0, 1.0])), [-0.158655, 0.841345], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swish", -1, 1, 2), "expected one of relu"),
        (("relu", 1, 1, 2), "low < high"),
        (("relu", -np.inf, 1, 2), "low < high"),
        (("relu", -1, 1, 5), "from 0 to 4"),
        (("relu", -1, 1, 2.0), "from 0 to 4"),
        (("relu", -1, 1, 2, [1, -1]), "negative"),
        (("relu", -1, 1, 2, [[1.0]]), "expected \\(bins,\\)"),
        (("relu", -1, 1, 2, ["a"]), "expected numbers"),
        (("relu", -1, 1, 2, [0.0, 0.0]), "have any weight"),
        ((lambda x: 1.0, -1, 1, 2), "expected the same shape"),
        ((lambda x: np.where(x < 0, np.nan, x), -1, 1, 2), "not finite"),
    ],
)
def test_fits_refuse_what_they_cannot_do(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit_polynomial(*arguments)
