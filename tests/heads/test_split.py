"""Split heads: what rows keep after public layers, both halves together, and how a client learns of its half."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import Head, InputContract, Layer, Linear, ModelSpec, Polynomial, ReLU, Square
from secure_infer.heads.split import contract_after, evaluate_layers, private_network, public_layers
from secure_infer.v1 import models_pb2
from secure_infer.wire import models
from shared import hidden_head, linear_head, unit_rows

KINDS = ("linear", "square", "relu", "polynomial", "polynomial a unit")


def made(kinds: list[str], features: int, rng: np.random.Generator) -> list[Layer]:
    """Layers of those kinds; linear ones change the width."""
    layers: list[Layer] = []
    width = features
    for kind in kinds:
        if kind == "linear":
            units = int(rng.integers(1, 6))
            layers.append(Linear(rng.normal(size=(units, width)), rng.normal(size=units)))
            width = units
        elif kind.startswith("polynomial"):
            shape = (width, 4) if kind.endswith("unit") else (4,)
            layers.append(Polynomial(rng.normal(size=shape)))
        else:
            layers.append(Square() if kind == "square" else ReLU())
    return layers


def corners(layers: list[Layer], contract: InputContract, rng: np.random.Generator) -> np.ndarray:
    """Rows on the contract's edge: random ones, and those that stretch the units of a first linear layer furthest."""
    x = rng.normal(size=(20, contract.features))
    if isinstance(layers[0], Linear):
        x = np.concatenate([x, layers[0].weight, -layers[0].weight, np.sign(layers[0].weight)])
    x = x * contract.largest_norm * (1 - 1e-12) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return np.clip(x, -contract.bound, contract.bound)


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    st.integers(1, 6),
    st.floats(0.1, 10),
    st.none() | st.floats(0.1, 10),
    st.integers(0, 10**6),
)
def test_rows_keep_what_is_stated_after_the_layers(
    kinds: list[str], features: int, bound: float, norm: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    layers, contract = made(kinds, features, rng), InputContract(features, bound, norm)
    after = contract_after(layers, contract)
    x = np.concatenate([corners(layers, contract, rng), np.zeros((1, features))])
    after.check(evaluate_layers(layers, contract.check(x)))


def test_a_linear_layers_bounds_are_reached() -> None:
    """W = (3, 4), |x| <= 1: five, and the hair that rounding may take."""
    after = contract_after([Linear([[3.0, 4.0]], [0.5])], InputContract(2, 1.0, 1.0))
    assert after.features == 1
    assert 5.5 <= after.bound <= 5.5 * 1.003
    assert after.largest_norm <= 5.5 * 1.005


def test_a_relu_lengthens_no_row() -> None:
    after = contract_after([ReLU()], InputContract(100, 1.0, 1.0))
    assert after.largest_norm <= 1.005


def test_no_public_layers_change_nothing() -> None:
    contract = InputContract(3, 2.0, 1.0)
    assert contract_after([], contract) == contract
    spec = ModelSpec.of("m", linear_head(8, 3))
    assert spec.public_layers == ()
    assert spec.encrypted == spec.contract
    x = unit_rows(2, 8)
    assert spec.carry(x) is x


HEADS = {
    "hidden": hidden_head((6, 5, 4, 3), Polynomial([0.1, 1.0, 0.5])),
    "square": hidden_head((6, 5, 3)),
    "a curve a unit": hidden_head((6, 5, 3), Polynomial(np.random.default_rng(0).normal(size=(5, 4)))),
    "affine": linear_head(6, 3),
}


@pytest.mark.parametrize("name", HEADS)
def test_both_halves_are_the_head(name: str) -> None:
    whole, x = HEADS[name], unit_rows(5, 6)
    for public in range(len(whole.layers)):
        head = Head(whole.layers, labels=whole.labels, input_bound=1.0, input_norm=1.0, public_layers=public)
        spec = ModelSpec.of("m", head)
        network = private_network(head)
        carried = spec.carry(x)
        assert carried.shape[1] == network.features == spec.encrypted.features
        assert network(carried) == pytest.approx(whole.evaluate(x), rel=1e-9, abs=1e-9)
        spec.encrypted.check(carried)


def test_a_public_relu_is_no_hindrance_and_a_private_one_is() -> None:
    layers = [Linear(np.eye(4)), ReLU(), Linear(np.ones((2, 4)))]
    labels = ["no", "yes"]
    x = unit_rows(3, 4)
    open_minded = Head(layers, labels=labels, input_bound=1.0, public_layers=2)
    found = private_network(open_minded)(evaluate_layers(public_layers(open_minded), x))
    assert found == pytest.approx(open_minded.evaluate(x))
    with pytest.raises(UnsupportedHead, match="no polynomial"):
        private_network(Head(layers, labels=labels, input_bound=1.0, public_layers=1))


def test_a_private_activation_first_gets_an_identity() -> None:
    head = hidden_head((6, 5, 3), public_layers=1)
    assert private_network(head).widths == (5, 5, 3)


@pytest.mark.parametrize("name", HEADS)
def test_nothing_left_to_hide_is_a_named_error(name: str) -> None:
    whole = HEADS[name]
    head = Head(whole.layers, labels=whole.labels, input_bound=1.0, public_layers=len(whole.layers))
    with pytest.raises(UnsupportedHead, match="nothing is left to hide"):
        private_network(head)


# On the wire.


@pytest.fixture
def message() -> models_pb2.ModelSpec:
    head = hidden_head((6, 5, 3), Polynomial(np.random.default_rng(0).normal(size=(5, 3))), public_layers=2)
    return models.to_proto(ModelSpec.of("m", head))


@pytest.mark.parametrize("kind", [Square(), ReLU(), Polynomial([0.1, 1.0]), Polynomial(np.ones((5, 3)))])
@pytest.mark.parametrize("public", [0, 1, 2])
def test_a_spec_with_public_layers_round_trips(kind: Layer, public: int) -> None:
    spec = ModelSpec.of("m", hidden_head((6, 5, 3), kind, public_layers=public))
    found = models.from_proto(models_pb2.ModelSpec.FromString(models.to_proto(spec).SerializeToString()))
    assert found == spec
    assert found.encrypted == spec.encrypted
    x = unit_rows(4, 6)
    assert np.array_equal(found.carry(x), spec.carry(x))


def test_private_layers_do_not_travel(message: models_pb2.ModelSpec) -> None:
    assert [layer.kind for layer in message.public_layers] == ["linear", "polynomial"]
    secret = hidden_head((6, 5, 3), public_layers=2).layers[2]
    assert isinstance(secret, Linear)
    assert secret.weight.astype("<f8").tobytes()[:16] not in message.SerializeToString()


def test_another_public_layer_is_another_spec(message: models_pb2.ModelSpec) -> None:
    """What a client pins covers the layers that it evaluates."""
    spec = models.from_proto(message)
    values = bytearray(message.public_layers[0].parameters[0].values)
    values[6] ^= 1
    message.public_layers[0].parameters[0].values = bytes(values)
    assert models.from_proto(message) != spec


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("too few bytes", lambda m: setattr(m.public_layers[0].parameters[0], "values", b"12345678")),
        ("no kind", lambda m: setattr(m.public_layers[0], "kind", "")),
        ("an unknown kind", lambda m: setattr(m.public_layers[0], "kind", "softmax")),
        ("another layer's kind", lambda m: setattr(m.public_layers[0], "kind", "square")),
        ("an unknown parameter", lambda m: setattr(m.public_layers[0].parameters[0], "name", "self")),
        ("no parameters", lambda m: m.public_layers[0].ClearField("parameters")),
        ("no axes", lambda m: (m.public_layers[0].parameters[0].ClearField("shape"),)),
        ("an empty axis", lambda m: m.public_layers[0].parameters[0].MergeFrom(models_pb2.Tensor(shape=[0]))),
        ("widths that do not fit", lambda m: setattr(m, "features", 7)),
        ("units that do not fit", lambda m: m.public_layers.add(kind="linear").CopyFrom(m.public_layers[0])),
        ("no numbers", lambda m: _set(m, np.full((5, 6), np.nan))),
        ("infinite numbers", lambda m: _set(m, np.full((5, 6), np.inf))),
    ],
)
def test_hostile_public_layers_are_refused(message: models_pb2.ModelSpec, what: str, change: object) -> None:
    change(message)  # type: ignore[operator]
    with pytest.raises(PlanRefused):
        models.from_proto(message)


def _set(message: models_pb2.ModelSpec, weight: np.ndarray) -> None:
    message.public_layers[0].parameters[0].values = weight.astype("<f8").tobytes()


@pytest.mark.filterwarnings("error")
def test_public_layers_beyond_all_numbers_are_refused(message: models_pb2.ModelSpec) -> None:
    """Allowed one by one, they take rows to infinity together."""
    _set(message, np.full((5, 6), 1e30))
    for _ in range(16):
        message.public_layers.add(kind="square")
    with pytest.raises(PlanRefused, match="beyond all numbers"):
        models.from_proto(message)
