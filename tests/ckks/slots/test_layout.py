"""Where things lie in slots: every weight is met once, and what travels and is multiplied adds up to W x."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckks.slots.pair import contract, network
from secure_infer.ckks.embedding import to_coefficients, to_slots
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.slots import pack_input
from secure_infer.ckks.slots.layout import (
    Diagonals,
    carried_terms,
    column_of,
    complex_columns,
    output_polynomials,
    real_weights,
)
from secure_infer.ckks.slots.layouts import layouts, period_of, unfit
from secure_infer.ckks.slots.plan import SlotPlan
from secure_infer.ckks.slots.planner import Demand, Layout, Planner

N = 64
POWERS = st.integers(0, 5).map(lambda bits: 1 << bits)


def test_the_worked_example() -> None:
    assert column_of(8, period=4, parts=2, shifts=2).tolist() == [0, 1, 2, 3, 2, 3, 0, 1]
    plan = replace(slot_plan(), features=8, inputs=1, period=4, parts=2, shifts=2, input_scale=1)
    columns = np.array([1, 2, 3, 4]) + 1j * np.array([5, 6, 7, 8])
    slots = to_slots(pack_input(replace(plan, input_scale=1 << 40), np.arange(1.0, 9.0))[0]) / 2**40
    assert np.allclose(slots[:8], columns[[0, 1, 2, 3, 2, 3, 0, 1]])
    # Unit 0 sits in slots 0 and 4; rotations by 0 and 1 bring it every column once.
    seen = [np.roll(column_of(8, 4, 2, 2), -rotation)[slot] for rotation in (0, 1) for slot in (0, 4)]
    assert sorted(seen) == [0, 1, 2, 3]


@settings(deadline=None, max_examples=200)
@given(period=POWERS, parts=POWERS, shifts=POWERS, copies=POWERS)
def test_every_unit_meets_every_column_once(period: int, parts: int, shifts: int, copies: int) -> None:
    shifts, slots = min(shifts, period), period * parts * copies
    column = column_of(slots, period, parts, shifts)
    for unit in range(period):
        for first in range(min(copies, 3)):  # wherever the window of parts begins
            blocks = (unit + period * (np.arange(parts) + first)) % slots
            seen = np.concatenate([np.roll(column, -rotation)[blocks] for rotation in range(shifts)])
            assert np.array_equal(np.sort(seen), np.arange(shifts * parts))


def evaluated(
    found: Diagonals, inputs: np.ndarray, *, period: int, parts: int, babies: int, scale: float
) -> np.ndarray:
    """What the server does, on slots (ciphertexts, n): babies, Horner over giant steps, folds."""
    total = np.zeros(inputs.shape[1], np.complex128)
    for giant in reversed(range(found.polynomials.shape[1] // babies)):
        total = np.roll(total, -babies)
        for slots, row in zip(inputs, found.polynomials, strict=True):
            for baby in range(babies):
                total = total + np.roll(slots, -baby) * to_slots(row[giant * babies + baby]) / scale
    for step in reversed(range(parts.bit_length() - 1)):
        total = total + np.roll(total, -(period << step))
    return total


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, int]:
    period = draw(st.sampled_from([1, 2, 4, 8]))
    parts = draw(st.sampled_from([p for p in (1, 2, 4, 8) if period * p <= N // 2]))
    shifts = draw(st.sampled_from([s for s in (1, 2, 4, 8) if s <= period]))
    babies = draw(st.sampled_from([b for b in (1, 2, 4, 8) if b <= shifts]))
    return {"inputs": draw(st.integers(1, 3)), "period": period, "parts": parts, "shifts": shifts, "babies": babies}


@settings(deadline=None, max_examples=200)
@given(shape=shapes(), seed=st.integers(0, 999), real=st.booleans())
def test_diagonals_evaluate_the_matrix_they_carry(shape: dict[str, int], seed: int, real: bool) -> None:
    rng, scale = np.random.default_rng(seed), 2.0**20
    per = shape["shifts"] * shape["parts"]
    units, columns = rng.integers(1, shape["period"] + 1), rng.integers(1, shape["inputs"] * per + 1)
    matrix = rng.normal(size=(units, columns)) + (0 if real else 1j) * rng.normal(size=(units, columns))
    matrix[rng.random(matrix.shape) < 0.3] = 0.0
    found = Diagonals(matrix, slots=N // 2, scale=scale, **shape)
    assert np.array_equal(found.polynomials, np.rint(found.polynomials))
    padded = np.zeros((shape["period"], shape["inputs"] * per), np.complex128)
    padded[:units, :columns] = matrix
    assert np.abs(found.effective - padded).max() < N / scale
    u = rng.normal(size=shape["inputs"] * per) + 1j * rng.normal(size=shape["inputs"] * per)
    at = column_of(N // 2, shape["period"], shape["parts"], shape["shifts"])
    values = evaluated(
        found,
        u.reshape(shape["inputs"], per)[:, at],
        **{name: shape[name] for name in ("period", "parts", "babies")},
        scale=scale,
    )
    assert np.allclose(values, np.tile(found.effective @ u, N // 2 // shape["period"]), atol=1e-9)


def test_a_zero_matrix_carries_one_last_place() -> None:
    found = Diagonals(np.zeros((2, 4)), slots=8, period=2, inputs=2, parts=1, shifts=2, babies=1, scale=8.0)
    assert found.polynomials.sum() == 1.0
    assert np.array_equal(found.effective, [[1 / 8, 0, 0, 0], [0, 1 / 8, 0, 0]])


@settings(deadline=None)
@given(features=st.integers(1, 40), units=st.integers(1, 9), seed=st.integers(0, 99))
def test_complex_columns_are_twice_the_real_part(features: int, units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, columns = rng.normal(size=(units, features)), -(-features // 2) + int(rng.integers(0, 4))
    found = complex_columns(weight, columns)
    assert np.array_equal(real_weights(found, features), weight)
    plan = replace(slot_plan(), features=features, inputs=1, period=1, parts=32, shifts=1, input_scale=1 << 40)
    x = rng.normal(size=features)
    u = to_slots(pack_input(plan, x)[0])[:columns] / 2**40
    assert np.allclose(2 * (found @ u[: found.shape[1]]).real, weight @ x)


def slot_plan() -> SlotPlan:
    planner = Planner(network((2, 2, 1)), contract(2))
    demand = Demand(privacy=Privacy.INPUT_PRIVATE, error=0.1)
    return planner.program(Layout(8192, 1, 1, 1, 1), demand).plan


@pytest.mark.parametrize(("rows", "period"), [(1, 1), (5, 1), (3, 64), (128, 64), (2, 4096), (9, 512)])
def test_outputs_are_coefficients(rows: int, period: int) -> None:
    plan = replace(slot_plan(), outputs=rows, answers_per_product=min(rows, 8192 // period))
    rng = np.random.default_rng(0)
    terms, t = rng.normal(size=(rows, period, 2)), rng.normal(size=period)
    for product in range(plan.products):
        slots = output_polynomials(plan, terms, product)[1]
        assert np.allclose(carried_terms(plan, slots, product, period), terms[list(plan.rows(product)), :, 1])
        found = to_coefficients(slots * np.tile(t, plan.slots // period)) * period
        answers = [found[plan.position(place)] for place, _ in enumerate(plan.rows(product))]
        assert np.allclose(answers, terms[list(plan.rows(product)), :, 1] @ t)


@pytest.mark.parametrize(
    ("features", "units"), [(1, 1), (2, 8), (7, 3), (30, 16), (384, 256), (1000, 5), (3000, 64), (30, 4096)]
)
def test_layouts_hold_all_features(features: int, units: int) -> None:
    found = list(layouts(network((features, units, 2)), 8192))
    assert found
    assert len(set(found)) == len(found) <= 100
    for layout in found:
        assert layout.parts * period_of(units) <= 4096
        assert layout.babies <= layout.shifts <= period_of(units)
        assert 2 * layout.inputs * layout.parts * layout.shifts >= features
        assert 2 * (layout.inputs - 1) * layout.parts * layout.shifts < features
        assert layout.rotations < features


def test_what_does_not_fit_a_ring_is_said() -> None:
    assert unfit(network((30, 16, 2)), 4096) == ""
    assert "2049 units; expected at most 2048" in unfit(network((3, 2049, 2)), 4096)
    assert "2049 units" in unfit(network((3, 2, 2049, 2)), 4096)
    assert "49153 features; expected at most 49152" in unfit(network((49153, 1, 1)), 4096)
    assert not list(layouts(network((3, 2049, 2)), 4096))
    assert list(layouts(network((49152, 1, 1)), 4096))
