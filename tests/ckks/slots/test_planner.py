"""What the planner chooses, what it states about it, and how it refuses."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ckks.slots.pair import contract, network, smallest
from secure_infer.ckks.embedding import conjugation, element
from secure_infer.ckks.parameters import MAX_MODULUS_BITS
from secure_infer.ckks.plan import SIGMAS, WINDOW, Privacy
from secure_infer.ckks.slots.compiled import compile_network, rounding_error
from secure_infer.ckks.slots.noise import evaluation_noise
from secure_infer.ckks.slots.plan import SlotPlan
from secure_infer.ckks.slots.planner import DEGREES, Demand, Layout, Planner, layouts
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads.network import Network

LAYOUT = Layout(8192, 1, 4, 4, 1)
DEMAND = Demand(error=1e-2, smudging=8)


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(network((30, 16, 5)), contract(30))


def data_bits(plan: SlotPlan) -> int:
    return sum(prime.bit_length() for prime in plan.parameters.data_primes)


def test_a_program_states_what_it_reaches(planner: Planner) -> None:
    program = planner.program(LAYOUT, DEMAND)
    plan, noise = program.plan, evaluation_noise(planner.influence, program)
    assert plan.smudging_bits == int(np.log2(plan.flood / noise)) >= DEMAND.smudging
    assert plan.flood == DEMAND.error / 8
    exact = rounding_error(planner.influence, compile_network(planner.network, program))
    assert exact + SIGMAS * plan.flood <= plan.error_bound <= DEMAND.error
    assert plan.answer_range >= planner.influence.largest
    assert plan.parameters.total_bits <= MAX_MODULUS_BITS[8192]
    plan.check()
    plan.check_for(contract(30), 5, Privacy.BOTH_PRIVATE)


def test_scales_and_levels_fit_together(planner: Planner) -> None:
    for demand in (DEMAND, replace(DEMAND, smudging=16, error=1e-3)):
        program = planner.program(LAYOUT, demand)
        (layer,), primes = program.layers, program.plan.parameters.data_primes
        dropped = np.prod([float(p) for p in primes[layer.level : layer.level_in]])
        assert np.isclose(layer.scale_in * layer.weight_scale / dropped, layer.scale)
        modulus = float(np.prod([float(p) for p in primes[: layer.level]]))
        answer = layer.product_scale / layer.period * float(primes[0]) / modulus  # of a logit of one, after dropping
        assert np.isclose(answer, program.plan.unit)
        assert primes[0] / program.plan.unit >= WINDOW * program.plan.answer_range
    assert program.plan.input_scale == layer.scale_in == 2 ** round(np.log2(layer.scale_in))


@pytest.mark.parametrize(
    ("widths", "degree"), [((30, 16, 8, 3), 2), ((30, 16, 8, 3), 4), ((4, 2, 3, 2, 3), 2)], ids=str
)
def test_scales_do_not_drift_from_layer_to_layer(widths: tuple[int, ...], degree: int) -> None:
    planner = Planner(network(widths, degree), contract(widths[0]))
    layers = smallest(planner, DEMAND).layers
    assert len({layer.scale for layer in layers}) == 1
    for before, after in pairwise(layers):
        assert (before.level_out, before.scale_out) == (after.level_in, after.scale_in)
    for layer in layers:
        assert layer.level_in >= layer.level >= layer.level_square >= layer.level_out >= 1
        assert all(layer.scale_of(power) >= 2.0**9 for power in range(1, layer.degree + 1))


def test_input_private_plans_leave_the_flood_out(planner: Planner) -> None:
    program = planner.program(LAYOUT, replace(DEMAND, privacy=Privacy.INPUT_PRIVATE))
    plan, noise = program.plan, evaluation_noise(planner.influence, program)
    assert (plan.flood, plan.smudging_bits, plan.answer_bits) == (0.0, 0, 0)
    assert SIGMAS * noise <= plan.error_bound <= DEMAND.error
    assert data_bits(plan) < data_bits(planner.program(LAYOUT, DEMAND).plan)


def test_more_is_paid_for_with_modulus(planner: Planner) -> None:
    sizes = [data_bits(planner.draft(LAYOUT, replace(DEMAND, smudging=s)).plan) for s in range(1, 20)]
    assert sizes == sorted(sizes)
    sizes = [data_bits(planner.draft(LAYOUT, replace(DEMAND, error=e)).plan) for e in (1e-1, 1e-2, 1e-3)]
    assert sizes == sorted(sizes)


def test_drafts_are_programs_before_rounding(planner: Planner) -> None:
    for layout in layouts(planner.network, 8192):
        draft, program = planner.draft(layout, DEMAND), planner.program(layout, DEMAND)
        assert (draft.layers, draft.plan.error_bound) == (program.layers, DEMAND.error)


def test_the_next_scales_are_tried_when_weights_round_worse_than_estimated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = network((30, 16, 5), size=100.0)
    planner, worse = Planner(head, contract(30)), [1.0, 0.5]
    estimated = planner.draft(LAYOUT, DEMAND)
    monkeypatch.setattr(
        "secure_infer.ckks.slots.planner.rounding_error",
        lambda influence, compiled: worse.pop() if worse else rounding_error(influence, compiled),
    )
    program = planner.program(LAYOUT, DEMAND)
    assert not worse
    assert program.layers[0].weight_scale > 2.0 * estimated.layers[0].weight_scale
    assert program.layers[0].coefficient_scale > 2.0 * estimated.layers[0].coefficient_scale


def test_the_keys_are_those_of_the_automorphisms_used() -> None:
    planner = Planner(network((60, 16, 5)), contract(60))
    program = planner.program(Layout(8192, 1, 2, 16, 4, 1), DEMAND)
    (layer,) = program.layers
    top = layer.level_in
    moves = {element(1, 8192): top, element(4, 8192): top, element(16, 8192): top, conjugation(8192): layer.level}
    assert dict(program.plan.moves) == moves
    assert (layer.folds, layer.giants) == ([16], 4)


# Refusals.


def refused(head: Network, demand: Demand, degree: int = 32768, bound: float = 1.0) -> str:
    planner = Planner(head, contract(head.features, bound, bound))
    with pytest.raises(UnsupportedHead) as caught:
        planner.program(next(layouts(head, degree)), demand)
    return caught.value.message


def test_a_large_range_is_named() -> None:
    said = refused(network((30, 16, 5)), Demand(error=1e-3), 4096, bound=1e6)
    assert "30 -> 16 -> 5" in said
    assert "logits below" in said
    assert "bits of modulus" in said
    assert "a larger ring" in said
    assert "smaller weights" in said


def test_many_layers_are_named() -> None:
    said = refused(network((8, 8, 8, 8, 8, 3), 4), Demand(error=1e-3))
    assert "degree 4, 4, 4, 4" in said
    assert "18 are wanted" in said
    assert "a larger ring" not in said
    assert "fewer hidden layers, lower degrees" in said
    said = refused(network((8, 8, 8, 8, 8, 8, 8, 3), 4), Demand(error=1e-3))
    assert "has 868" in said
    assert "fewer hidden layers, lower degrees" in said


def test_what_precision_would_fit_is_said() -> None:
    said = refused(network((30, 16, 5), size=100.0), replace(DEMAND, error=1e-6), 4096)
    assert "an error bound of" in said


def test_missing_smudging_is_said_and_what_is_offered_fits() -> None:
    planner, layout = Planner(network((30, 16, 5)), contract(30)), Layout(8192, 1, 16, 1, 1)
    with pytest.raises(
        UnsupportedHead, match=r"40 are wanted; what helps: a larger ring, (\d+) smudging bits"
    ) as caught:
        planner.program(layout, Demand(error=1e-3, smudging=40))
    offered = int(caught.value.message.split("a larger ring, ")[1].split()[0])
    assert planner.program(layout, Demand(error=1e-3, smudging=offered)).plan.smudging_bits == offered


def test_too_many_outputs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_infer.ckks.plan.MAX_ANSWER_BYTES", 10_000)
    said = refused(network((2, 3, 4)), DEMAND, 8192)
    assert "2 -> 3 -> 4" in said
    assert "expected at most 10000" in said
    assert "fewer outputs" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"period": 24}, "period: expected a power of two"),
        ({"parts": 0}, "parts: expected a power of two"),
        ({"shifts": 32}, "do not fit 4096 slots"),
        ({"parts": 1 << 12}, "do not fit 4096 slots"),
        ({"inputs": 65}, "do not hold"),
        ({"features": 33}, "do not hold 33 features"),
        ({"moves": ((4, 1),)}, "keys: they do not fit the ring"),
        ({"moves": ((3, 9),)}, "keys: they do not fit the ring"),
        ({"moves": ((3, 1), (3, 2))}, "keys: they do not fit the ring"),
        ({"products_at": 0}, "keys: they do not fit the ring"),
        ({"unit": float("nan")}, "unit: expected a positive number"),
    ],
    ids=str,
)
def test_unsound_plans_are_refused(planner: Planner, change: dict, said: str) -> None:
    with pytest.raises(PlanRefused, match=said):
        replace(planner.program(LAYOUT, DEMAND).plan, **change).check()


def test_positions_of_answers_do_not_meet(planner: Planner) -> None:
    plan = planner.program(LAYOUT, DEMAND).plan
    assert [plan.position(row) for row in range(4)] == [0, 4096, 1, 4097]
    assert sorted(plan.position(row) for row in range(8192)) == list(range(8192))


def test_the_smallest_ring_is_tried_first() -> None:
    assert DEGREES == (4096, 8192, 16384, 32768)
