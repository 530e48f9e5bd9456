"""Slot plans end to end in one process: the stated bound holds for every shape, degree and layout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckks.slots.pair import SlotPair, contract, network, project, smallest, worst_inputs
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.slots.planner import DEGREES, Demand, Layout, Planner
from secure_infer.ckks.slots.program import Program
from secure_infer.errors import InternalFault
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Hidden, Network

MILD = Demand(error=1e-2, smudging=8)
OPEN = replace(MILD, privacy=Privacy.INPUT_PRIVATE)


def inputs(head: Network, accepted: InputContract) -> np.ndarray:
    """Random rows, rows on the edge that stretch outputs furthest, and zero."""
    random = project(np.random.default_rng(1).normal(size=(1, accepted.features)), accepted)
    return np.concatenate([random, worst_inputs(head, accepted, 1), np.zeros((1, accepted.features))])


def held(head: Network, accepted: InputContract, program: Program, planner: Planner) -> SlotPair:
    pair = SlotPair(planner.network, program)
    for row in inputs(head, accepted):
        accepted.check(row[None])
        assert np.abs(pair(row) - head(row[None])[0]).max() <= pair.plan.error_bound <= MILD.error
    return pair


def fitted(head: Network, accepted: InputContract, demand: Demand, degrees: tuple[int, ...] = DEGREES) -> SlotPair:
    planner = Planner(head, accepted)
    return held(head, accepted, smallest(planner, demand, degrees), planner)


WIDTHS = [
    *[(d, 8, 3) for d in (1, 2, 3, 7, 30, 384, 1000, 3000)],
    *[(30, h, 3) for h in (1, 2, 5, 64, 256)],
    *[(30, 16, k) for k in (1, 2, 10, 21, 40)],
    (1, 1, 1),
]


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_every_shape_holds_its_bound(widths: tuple[int, ...], privacy: Privacy) -> None:
    pair = fitted(network(widths), contract(widths[0]), replace(MILD, privacy=privacy), (8192,))
    assert pair.plan.privacy is privacy
    if privacy is Privacy.BOTH_PRIVATE:
        assert pair.plan.smudging_bits >= 8


@pytest.mark.parametrize("outputs", [70, 500])
def test_more_answers_than_one_product_holds(outputs: int) -> None:
    pair = fitted(network((30, 256, outputs)), contract(30), OPEN, (8192,))
    assert pair.plan.products == -(-outputs // 32)


@pytest.mark.parametrize("degree", [3, 4])
@pytest.mark.parametrize("widths", [(30, 16, 3), (5, 1, 1), (7, 20, 40)], ids=str)
def test_higher_degrees(widths: tuple[int, ...], degree: int) -> None:
    fitted(network(widths, degree), contract(widths[0]), MILD, (8192,))


@pytest.mark.parametrize("widths", [(30, 16, 8, 3), (5, 1, 1, 1), (4, 3, 16, 40), (30, 16, 16, 1)], ids=str)
def test_two_hidden_layers(widths: tuple[int, ...]) -> None:
    fitted(network(widths), contract(widths[0]), MILD, (16384,))


@pytest.mark.parametrize(
    ("widths", "degree"), [((30, 16, 8, 3), 3), ((30, 16, 8, 3), 4), ((3, 3, 5, 7, 2), 2)], ids=str
)
def test_deep_heads(widths: tuple[int, ...], degree: int) -> None:
    fitted(network(widths, degree), contract(widths[0]), MILD)


@pytest.mark.parametrize("bound", [3.0, 0.05])
def test_contracts_of_bounds_alone(bound: float) -> None:
    fitted(network((9, 6, 2)), contract(9, bound, None), MILD, (8192,))


LAYOUTS = [
    Layout(8192, 1, 16, 1, 1),
    Layout(8192, 1, 16, 1, 1, 4),
    Layout(8192, 1, 8, 2, 1, 1),
    Layout(8192, 1, 4, 4, 2),
    Layout(8192, 1, 1, 16, 1),
    Layout(8192, 1, 1, 16, 8),
    Layout(8192, 2, 8, 1, 1, 2),
    Layout(8192, 2, 2, 4, 4, 1),
    Layout(8192, 4, 4, 1, 1),
    Layout(8192, 8, 1, 2, 1),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout(layout: Layout) -> None:
    head = network((30, 16, 5), seed=3)
    planner = Planner(head, contract(30))
    pair = held(head, contract(30), planner.program(layout, MILD), planner)
    first = pair.program.layers[0]
    assert (first.shifts, first.babies, first.early) == (layout.shifts, layout.babies, layout.early)


def degenerate() -> dict[str, Network]:
    """Heads with something that is zero."""
    head = network((6, 5, 3), seed=2)
    (hidden,), output = head.hidden, head.output
    rows, columns, flat = hidden.weight.copy(), hidden.weight.copy(), hidden.coefficients.copy()
    rows[[0, 3]], columns[:, [1, 2]], flat[1::2, 2] = 0.0, 0.0, 0.0
    quiet = output.weight.copy()
    quiet[1] = 0.0
    straight = hidden.coefficients.copy()
    straight[:, 2] = 0.0
    later = network((6, 5, 4, 3), seed=2)
    empty = Hidden(np.zeros((4, 5)), later.hidden[1].coefficients)
    return {
        "zero rows": Network([Hidden(rows, hidden.coefficients)], output),
        "zero columns": Network([Hidden(columns, hidden.coefficients)], output),
        "zero matrix": Network([Hidden(np.zeros_like(rows), hidden.coefficients)], output),
        "a zero output": Network([hidden], Linear(quiet, output.bias)),
        "zero outputs": Network([hidden], Linear(np.zeros_like(quiet), output.bias)),
        "zero everywhere": Network([Hidden(np.zeros_like(rows), 0 * flat)], Linear(0 * quiet)),
        "linear units": Network([Hidden(hidden.weight, flat)], output),
        "linear units alone": Network([Hidden(hidden.weight, straight)], output),
        "zero later matrix": Network([later.hidden[0], empty], later.output),
        "zero first of two": Network(
            [Hidden(np.zeros((5, 6)), later.hidden[0].coefficients), later.hidden[1]], later.output
        ),
        "zero curves of two": Network([Hidden(rows, 0 * flat), later.hidden[1]], later.output),
    }


@pytest.mark.parametrize("name", degenerate())
def test_zeros_are_evaluated(name: str) -> None:
    head = degenerate()[name]
    fitted(head, contract(6), MILD, (8192 if len(head.hidden) == 1 else 16384,))


@settings(max_examples=8, deadline=None)
@given(
    features=st.integers(1, 40),
    units=st.integers(1, 40),
    outputs=st.integers(1, 40),
    degree=st.integers(2, 4),
    size=st.floats(1e-3, 30.0),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_any_small_head(
    features: int, units: int, outputs: int, degree: int, size: float, seed: int, data: st.DataObject
) -> None:
    head = network((features, units, outputs), degree, seed=seed, size=size)
    private = data.draw(st.sampled_from(Privacy))
    fitted(head, contract(features), Demand(private, error=1e-2, smudging=6), (8192, 16384))


def test_the_smallest_ring_that_fits_is_found_first() -> None:
    planner = Planner(network((4, 2, 1), size=0.1), contract(4))
    small = smallest(planner, Demand(Privacy.INPUT_PRIVATE, error=0.1), DEGREES)
    assert small.plan.parameters.degree == 4096
    assert smallest(planner, replace(MILD, error=1e-4), DEGREES).plan.parameters.degree > 4096


def test_the_smallest_ring_holds_its_bound() -> None:
    head, accepted = network((4, 2, 1), size=0.1), contract(4)
    planner = Planner(head, accepted)
    pair = SlotPair(planner.network, smallest(planner, Demand(Privacy.INPUT_PRIVATE, error=0.1)))
    for row in inputs(head, accepted):
        assert np.abs(pair(row) - head(row[None])[0]).max() <= pair.plan.error_bound


def test_blinds_and_keys_are_required() -> None:
    pair = fitted(network((4, 2, 1)), contract(4), MILD, (8192,))
    blind, pair.blind = pair.blind, None
    with pytest.raises(InternalFault, match="blinding"):
        pair(np.zeros(4))
    pair.blind, pair.keys = blind, None
    with pytest.raises(InternalFault, match="without keys"):
        pair(np.zeros(4))
