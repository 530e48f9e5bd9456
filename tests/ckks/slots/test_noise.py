"""The noise model against measured noise, at the input where the model says noise is largest."""

import numpy as np
import pytest

from ckks.slots.pair import contract, network, noise, noisiest_input
from secure_infer.ckks import seal
from secure_infer.ckks.slots.influence import Influence, quiet_first, shared_columns
from secure_infer.ckks.slots.layout import Diagonals, column_of
from secure_infer.ckks.slots.noise import peaks, third_part_variance
from secure_infer.ckks.slots.planner import Demand, Layout, Planner
from secure_infer_client.keys import SecretKey

DEMAND = Demand(error=1e-2, smudging=6)
LAYOUTS = [
    Layout(8192, 1, 16, 1, 1),
    Layout(8192, 1, 16, 1, 1, 4),
    Layout(8192, 1, 4, 4, 1),
    Layout(8192, 1, 1, 16, 1),
    Layout(8192, 2, 2, 4, 2, 1),
]


def ratio(widths: tuple[int, ...], degree: int, layout: Layout, repeats: int = 30) -> float:
    """Predicted over measured; the largest of several measured deviations of 30 values is some 15% too large."""
    head, accepted = network(widths, degree), contract(widths[0])
    planner = Planner(head, accepted)
    program = planner.program(layout, DEMAND)
    predicted, measured = noise(planner, program, noisiest_input(planner.network, accepted), repeats)
    return predicted / measured


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_quadratics(layout: Layout) -> None:
    assert 0.8 < ratio((30, 16, 3), 2, layout) < 3.0


@pytest.mark.parametrize("layout", LAYOUTS[2:3], ids=str)
def test_many_answers_under_one_product_disturb_each_other(layout: Layout) -> None:
    found = ratio((30, 16, 20), 2, layout)
    assert 0.7 < found < 3.0
    head, accepted = network((30, 16, 20)), contract(30)
    influence = Influence(quiet_first(head, accepted), accepted)
    crowd, alone = (influence.arguments(0, "one", lambda: np.ones(16), per) for per in (20, 1))
    assert crowd.others > 2 * crowd.own
    assert alone.others == 0.0


@pytest.mark.parametrize("layout", LAYOUTS[1:3], ids=str)
@pytest.mark.parametrize("degree", [3, 4])
def test_higher_degrees(degree: int, layout: Layout) -> None:
    assert 0.8 < ratio((30, 16, 5), degree, layout, 25) < 10.0


@pytest.mark.parametrize(("widths", "degree"), [((30, 16, 8, 3), 2), ((30, 4, 16, 5), 2)], ids=str)
def test_two_hidden_layers(widths: tuple[int, ...], degree: int) -> None:
    assert ratio(widths, degree, Layout(16384, 1, 4, 4, 1), 12) > 0.8


@pytest.mark.slow
def test_two_cubic_layers_are_never_below() -> None:
    assert ratio((30, 16, 8, 3), 3, Layout(16384, 1, 4, 4, 1), 40) > 0.8


def test_the_square_of_a_ternary_secret_is_as_large_as_assumed() -> None:
    degree = 4096
    secret = SecretKey(seal.parameters(degree, (40,))).polynomial().astype(float)
    full = np.convolve(secret, secret)
    square = full[:degree] - np.append(full[degree:], 0.0)
    # A rounding error of variance 1/12 in each coefficient of the third part.
    assert np.isclose((square**2).sum() / 12, third_part_variance(degree), rtol=0.2)


def test_the_digits_mean_peaks_in_the_first_slots() -> None:
    found = peaks(8192, 64)
    assert np.argsort(found)[-2:].tolist() in ([0, 1], [1, 0])
    assert found[:2].sum() > 0.8 * found.sum()
    assert np.isclose(found.mean(), 8192 / 4, rtol=0.01)


def test_quiet_units_come_first_and_nothing_else_changes() -> None:
    head, accepted = network((6, 8, 5, 2)), contract(6)
    sorted_head = quiet_first(head, accepted)
    x = np.random.default_rng(0).normal(size=(4, 6))
    assert np.allclose(sorted_head(x), head(x))
    influence = Influence(quiet_first(network((6, 8, 2)), accepted), accepted)
    alone = [influence.bounds.sensitivity(0, errors).max() for errors in np.eye(8)]
    assert max(alone[:2]) < max(alone)


def test_shared_errors_are_those_of_the_diagonals() -> None:
    rng, shape = np.random.default_rng(0), {"inputs": 2, "shifts": 4, "parts": 2}
    matrix = rng.normal(size=(7, 16)) + 1j * rng.normal(size=(7, 16))
    found = Diagonals(matrix, slots=16, period=8, babies=1, scale=2.0**30, **shape)
    column, errors = column_of(16, 8, 2, 4), np.zeros((8, 2, 16), np.complex128)
    for unit in range(8):
        for c in range(2):
            for a in range(4):
                for slot in (unit, unit + 8):
                    errors[unit, c, (slot + a) % 16] += found.effective[unit, 8 * c + column[(slot + a) % 16]]
    flat = errors.reshape(8, -1)[:7]
    assert np.allclose(shared_columns(matrix, period=8, **shape), (flat @ flat.conj().T).real, atol=1e-6)


def test_the_worked_example_of_shared_errors() -> None:
    found = shared_columns(np.array([[2.0, 3.0], [5.0, 7.0]], np.complex128), 1, 2, 1, 2)
    assert np.array_equal(found, [[13.0, 2 * 5.0 + 3 * 7.0], [31.0, 74.0]])
