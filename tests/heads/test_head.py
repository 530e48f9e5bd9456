"""Layers, contract and evaluation of heads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secure_infer.errors import InvalidHead, InvalidInput
from secure_infer.heads import Head, InputContract, Linear, ModelSpec, Polynomial, ReLU, Square


def head(**changes: object) -> Head:
    arguments: dict = {"layers": [Linear([[1.0, 2.0]], [3.0])], "labels": ["no", "yes"], "input_bound": 4.0} | changes
    return Head(arguments.pop("layers"), **arguments)


def test_a_worked_example() -> None:
    h = Head(
        (Linear([[1, 0], [1, 1]], [0, -1]), Square(), Linear([[1, -1]], [0.5])), labels=["a", "b"], input_bound=9.0
    )
    # x = (2, 3): z = (2, 4), z² = (4, 16), 4 - 16 + 0.5
    assert h.evaluate([[2, 3]]).tolist() == [[-11.5]]
    assert (h.features, h.outputs) == (2, 1)


def test_relu_and_polynomial_per_unit() -> None:
    relu = Head((Linear(np.eye(2)), ReLU()), labels=["a", "b"], input_bound=1.0)
    assert relu.evaluate([[-1.0, 0.5]]).tolist() == [[0.0, 0.5]]
    poly = Head((Linear(np.eye(2)), Polynomial([[1, 2, 3], [0, 0, 1]])), labels=["a", "b"], input_bound=1.0)
    assert poly.evaluate([[2.0, 3.0]]).tolist() == [[1 + 4 + 12, 9]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["one"]}, "expected 2"),
        ({"labels": ["a", 3]}, "expected 2"),
        ({"layers": []}, "Linear layer first"),
        ({"layers": [Square()]}, "Linear layer first"),
        ({"layers": [Linear([[1.0, 2.0]]), Linear([[1.0, 2.0]])]}, "cannot follow"),
        ({"layers": [Linear([[1.0, 2.0]]), Polynomial([[1.0, 2.0], [1.0, 2.0]])]}, "cannot follow"),
        ({"layers": ["linear"]}, "expected Linear"),
        ({"input_bound": 0.0}, "positive"),
        ({"input_bound": float("nan")}, "positive"),
        ({"input_norm": -1.0}, "positive"),
        ({"public_layers": 2}, "public_layers"),
        ({"temperature": [1.0, 2.0, 3.0]}, "temperature"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_unsound_heads_are_named_errors(change: dict, message: str) -> None:
    with pytest.raises(InvalidHead, match=message):
        head(**change)


@pytest.mark.parametrize("weight", [[[np.nan]], [[np.inf]], [[]], "text", [1.0], [[["a"]]]])
def test_unsound_weights_are_named_errors(weight: object) -> None:
    with pytest.raises(InvalidHead):
        Linear(weight)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0], "rank 1"),
        ([[[1.0, 2.0]]], "rank 3"),
        ([[1.0, 2.0, 3.0]], "expected 2 features a row, got 3"),
        (np.zeros((0, 2)), "empty"),
        ([[1.0, np.nan]], "NaN or infinity"),
        ([[1.0, -np.inf]], "NaN or infinity"),
        ([["a", "b"]], "dtype"),
        ([[1j, 0]], "dtype"),
        ([[True, False]], "dtype"),
        ([[5.0, 0.0]], "bound"),
    ],
)
def test_bad_input_is_one_clear_error(x: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        head().contract.check(x)


def test_norm_is_checked_with_its_tolerance() -> None:
    contract = InputContract(2, 1.0, 1.0)
    contract.check(np.array([[1.0005, 0.0]]) * [0.999, 1])
    with pytest.raises(InvalidInput, match="L2 norm"):
        contract.check([[0.9, 0.9]])


def test_errors_hold_no_values() -> None:
    with pytest.raises(InvalidInput) as caught:
        head().contract.check([[123.456, 7.0]])
    assert "123" not in str(caught.value)


@given(arrays(np.float64, (3, 4), elements=st.floats(-2, 2)), st.floats(0.1, 3), st.none() | st.floats(0.1, 3))
def test_functional_bound_holds_and_is_reached(weights: np.ndarray, bound: float, norm: float | None) -> None:
    contract = InputContract(4, bound, norm)
    limit = contract.functional_bound(weights)
    rng = np.random.default_rng(0)
    x = rng.uniform(-bound, bound, (200, 4))
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    x = x * np.minimum(1, contract.largest_norm / np.maximum(lengths, 1e-300))
    assert (np.abs(x @ weights.T) <= limit * (1 + 1e-9) + 1e-12).all()
    if norm is None:
        corner = np.sign(weights) * bound
        assert np.allclose((weights * corner).sum(1), limit)


def test_affine_heads_collapse_to_one_layer() -> None:
    h = Head(
        [Linear([[1, 2], [3, 4]], [1, 1]), Polynomial([[0.5, 2.0], [1.0, -1.0]]), Linear([[1, 1]], [0])],
        labels=["a", "b"],
        input_bound=1.0,
    )
    linear = h.as_linear()
    assert linear is not None
    x = np.array([[0.3, -0.7], [1.0, 1.0]])
    assert np.allclose(linear(x), h.evaluate(x))
    assert Head([Linear(np.eye(2)), Square()], labels=["a", "b"], input_bound=1.0).as_linear() is None
    constant = Head([Linear(np.eye(2)), Polynomial([3.0])], labels=["a", "b"], input_bound=1.0).as_linear()
    assert constant is not None
    assert constant(x).tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_probabilities_and_margins() -> None:
    spec = ModelSpec.of("m", head(temperature=2.0))
    p = spec.probabilities(np.array([[2.0], [-2.0]]))
    assert np.allclose(p[:, 1], 1 / (1 + np.exp([-1.0, 1.0])))
    assert spec.margins(np.array([[2.0], [-2.0]])).tolist() == [2.0, 2.0]
    three = ModelSpec.of(
        "m", Head([Linear(np.eye(3))], labels=list("abc"), input_bound=1.0, temperature=[1.0, 1.0, 2.0])
    )
    logits = np.array([[1.0, 3.0, 2.5]])
    assert np.allclose(three.probabilities(logits), np.exp([1, 3, 1.25]) / np.exp([1, 3, 1.25]).sum())
    assert three.margins(logits).tolist() == [0.5]
