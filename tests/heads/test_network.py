"""The canonical form of heads equals them, and its bounds hold and are not idle."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head, InputContract, Linear, Polynomial, ReLU, Square
from secure_infer.heads.network import Bounds, Hidden, Network, output_terms

WIDTHS = st.integers(1, 6)


@st.composite
def stacks(draw: st.DrawFn) -> list:
    """Layers of any order, the first linear; polynomials of degree 0 to 4, one for all units or one each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(WIDTHS)
    units = draw(WIDTHS)
    layers: list = [Linear(rng.normal(size=(units, width)) / 2, rng.normal(size=units) / 2)]
    hidden = 0
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["linear", "identity", "square", "shared", "own"]))
        if kind == "linear":
            width, units = units, draw(WIDTHS)
            layers.append(Linear(rng.normal(size=(units, width)) / 2, rng.normal(size=units) / 2))
        elif kind == "identity":
            layers.append(Polynomial([0.0, 1.0]))
        elif hidden < 3:
            degree = draw(st.integers(0, 4))
            shape = (degree + 1,) if kind == "shared" else (units, degree + 1)
            layers.append(Square() if kind == "square" else Polynomial(rng.normal(size=shape) / 2))
            hidden += 1
    return layers


def head_of(layers: list, **contract: float) -> Head:
    units = [len(layer.bias) for layer in layers if isinstance(layer, Linear)][-1]
    labels = [str(k) for k in range(max(2, units))]
    return Head(layers, labels=labels, **{"input_bound": 1.0, **contract})


@settings(max_examples=300, deadline=None)
@given(layers=stacks(), seed=st.integers(0, 99))
def test_the_canonical_form_equals_the_head(layers: list, seed: int) -> None:
    head, network = head_of(layers), Network.of(layers)
    x = np.random.default_rng(seed).uniform(-1, 1, (5, head.features))
    expected = head.evaluate(x)
    assert np.allclose(network(x), expected, rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max()))
    assert (network.widths[0], network.widths[-1]) == (head.features, head.outputs)
    for hidden in network.hidden:
        assert 2 <= hidden.degree <= 4
        assert not hidden.coefficients[:, 0].any()


def test_neighbouring_affine_layers_are_one() -> None:
    network = Network.of([Linear(2 * np.eye(3)), Polynomial([1.0, 3.0]), Linear(np.ones((2, 3)), [1.0, 0.0])])
    assert not network.hidden
    assert np.array_equal(network.output.weight, np.full((2, 3), 6.0))
    assert np.array_equal(network.output.bias, [4.0, 3.0])


def test_neighbouring_polynomials_are_one_while_their_degree_fits() -> None:
    eye = Linear(np.eye(2))
    assert [h.degree for h in Network.of([eye, Square(), Square(), eye]).hidden] == [4]
    assert [h.degree for h in Network.of([eye, Square(), Square(), Square(), eye]).hidden] == [4, 2]
    assert [h.degree for h in Network.of([eye, Polynomial([0, 0, 0, 1.0]), Square(), eye]).hidden] == [3, 2]


def test_a_trailing_polynomial_gets_an_identity_after_it() -> None:
    network = Network.of([Linear(np.eye(2)), Square()])
    assert len(network.hidden) == 1
    assert np.array_equal(network.output.weight, np.eye(2))


def test_a_constant_ends_what_came_before() -> None:
    layers = [Linear(np.eye(2)), Square(), Polynomial([5.0]), Linear(np.ones((1, 2)))]
    network = Network.of(layers)
    assert not network.hidden
    assert network(np.ones((1, 2)))[0, 0] == 10.0


def test_the_worked_example() -> None:
    network = Network.of([Linear(np.eye(2), [1.0, 0.0]), Square(), Linear(np.ones((1, 2)))])
    assert np.array_equal(network.hidden[0].coefficients, [[0, 2, 1], [0, 0, 1]])
    assert network.output.bias == [1.0]


@pytest.mark.parametrize(
    ("layer", "said"), [(ReLU(), "relu layer is no polynomial"), (Polynomial([0, 0, 0, 0, 0, 1.0]), "degree 5")]
)
def test_what_cannot_be_evaluated_is_named(layer: object, said: str) -> None:
    with pytest.raises(UnsupportedHead, match=said):
        Network.of([Linear(np.eye(2)), layer, Linear(np.eye(2))])


def test_trailing_zero_coefficients_do_not_count() -> None:
    network = Network.of([Linear(np.eye(2)), Polynomial([0, 1.0, 1.0, 0, 0, 0]), Linear(np.eye(2))])
    assert network.hidden[0].degree == 2


# Bounds.


def random_network(rng: np.random.Generator, widths: tuple[int, ...], degree: int) -> Network:
    hidden = []
    for width, units in pairwise(widths[:-1]):
        coefficients = rng.normal(size=(units, degree + 1))
        coefficients[:, 0] = 0.0
        hidden.append(Hidden(rng.normal(size=(units, width)) / np.sqrt(width), coefficients))
    return Network(hidden, Linear(rng.normal(size=(widths[-1], widths[-2])), rng.normal(size=widths[-1])))


def edge_rows(rng: np.random.Generator, contract: InputContract, network: Network) -> np.ndarray:
    """Inputs on the contract's edge: random ones, corners, and those along the weights."""
    d = contract.features
    rows = np.concatenate(
        [rng.normal(size=(50, d)), np.sign(rng.normal(size=(20, d))), network.hidden[0].weight, np.eye(d)]
    )
    norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if contract.norm is None:
        return contract.bound * np.sign(rows)
    rows = rows / norms * contract.largest_norm * (1 - 1e-12)
    return (1 - 1e-12) * rows * np.minimum(1.0, contract.bound / np.abs(rows).max(axis=1, keepdims=True))


def arguments(network: Network, x: np.ndarray) -> list[np.ndarray]:
    found = []
    for layer in network.hidden:
        found.append(x @ layer.weight.T)
        x = Polynomial(layer.coefficients)(found[-1])
    return found


CONTRACTS = [(1.0, 1.0), (2.0, None), (0.4, 1.0)]
SHAPES = [((5, 7, 3), 2), ((5, 7, 3), 3), ((9, 4, 2), 4), ((1, 1, 1), 2), ((6, 5, 4, 3), 2), ((4, 6, 3, 2), 4)]


@pytest.mark.parametrize(("bound", "norm"), CONTRACTS)
@pytest.mark.parametrize(("widths", "degree"), SHAPES)
def test_bounds_hold(widths: tuple[int, ...], degree: int, bound: float, norm: float | None) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network, contract = random_network(rng, widths, degree), InputContract(widths[0], bound, norm)
        bounds, x = Bounds(network, contract), edge_rows(rng, contract, random_network(rng, widths, degree))
        x = np.concatenate([x, edge_rows(rng, contract, network)])
        contract.check(x)
        for found, largest in zip(arguments(network, x), bounds.units, strict=True):
            assert (np.abs(found).max(axis=0) <= largest * (1 + 1e-9)).all()
        assert (np.abs(network(x)).max(axis=0) <= bounds.outputs * (1 + 1e-9)).all()
        terms = rng.normal(size=(2, widths[-2], degree + 1))
        moved = np.einsum("khp,bhp->bk", terms, arguments(network, x)[-1][..., None] ** np.arange(degree + 1))
        assert (np.abs(moved).max(axis=0) <= bounds.change(terms) * (1 + 1e-9)).all()


def deviations(network: Network, x: np.ndarray, layer: int, covariance: np.ndarray) -> np.ndarray:
    """Standard deviation of each output (B, K), to first order, when a layer's arguments have that covariance."""
    t = arguments(network, x)
    jacobian = np.broadcast_to(network.output.weight, (len(x), *network.output.weight.shape))
    for index in range(len(network.hidden) - 1, layer - 1, -1):
        hidden = network.hidden[index]
        powers = np.arange(1, hidden.degree + 1)
        slopes = (hidden.coefficients[:, 1:] * powers * t[index][..., None] ** (powers - 1)).sum(axis=-1)
        jacobian = jacobian * slopes[:, None, :]
        if index > layer:
            jacobian = jacobian @ hidden.weight
    return np.sqrt(np.einsum("bkh,hi,bki->bk", jacobian, covariance, jacobian))


@pytest.mark.parametrize(("bound", "norm"), CONTRACTS)
@pytest.mark.parametrize(("widths", "degree"), SHAPES)
def test_sensitivity_holds(widths: tuple[int, ...], degree: int, bound: float, norm: float | None) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network, contract = random_network(rng, widths, degree), InputContract(widths[0], bound, norm)
        bounds, x = Bounds(network, contract), edge_rows(rng, contract, network)
        for layer, hidden in enumerate(network.hidden):
            errors, factor = rng.uniform(size=hidden.units), rng.normal(size=(hidden.units, 3))
            for given_errors, covariance in ((errors, np.diag(errors**2)), (factor @ factor.T, factor @ factor.T)):
                found = deviations(network, x, layer, covariance)
                limit = bounds.sensitivity(layer, given_errors)
                assert (found.max(axis=0) <= limit * (1 + 1e-9)).all()
                joint = bounds.sensitivity(layer, given_errors, joint=True)
                assert (np.linalg.norm(found, axis=1).max() <= joint * (1 + 1e-9)).all()
                some = bounds.sensitivity(layer, given_errors, rows=np.array([0]))
                assert np.allclose(some, limit[:1])


def test_quadratics_are_bounded_within_half_of_what_is_reached() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first, last = rng.normal(size=(24, 16)) / 4, rng.normal(size=(3, 24))
        network = Network.of([Linear(first), Square(), Linear(last)])
        bounds = Bounds(network, InputContract(16, 1.0, 1.0))
        for k in range(3):
            matrix = first.T @ (last[k][:, None] * first)
            x = rng.normal(size=16)
            for _ in range(2000):  # power iteration
                x = matrix @ (matrix @ x)
                x /= np.linalg.norm(x)
            reached = abs(network(x[None])[0, k])
            assert reached <= bounds.outputs[k] <= 1.5 * reached
            slopes = first.T @ ((2 * last[k][:, None]) ** 2 * first)
            value, vectors = np.linalg.eigh(slopes)
            steepest = deviations(network, vectors[:, -1][None], 0, np.eye(24))[0, k]
            assert np.isclose(steepest, np.sqrt(value[-1]))
            assert steepest <= bounds.sensitivity(0, np.ones(24))[k] <= 1.5 * steepest


def test_large_layers_are_bounded_by_frobenius_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    network, contract = random_network(rng, (5, 7, 3), 2), InputContract(5, 1.0, 1.0)
    exact = Bounds(network, contract).change(output_terms(network))
    monkeypatch.setattr("secure_infer.heads.network._EIGEN_WORK", 0.0)
    assert (Bounds(network, contract).change(output_terms(network)) >= exact * (1 - 1e-9)).all()


def test_an_affine_head_has_bounds_too() -> None:
    network = Network.of([Linear([[3.0, 4.0]], [1.0])])
    assert np.allclose(Bounds(network, InputContract(2, 1.0, 1.0)).outputs, 1 + 5 * 1.001)
