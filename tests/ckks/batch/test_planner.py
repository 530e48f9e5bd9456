"""What batch plans state, which are chosen and which refused."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import secure_infer
from secure_infer.ckks.batch.affine import AffineProgram
from secure_infer.ckks.batch.plan import BatchPlan, Layout
from secure_infer.ckks.batch.planner import FAST_SMUDGING, choose, plan_batch
from secure_infer.ckks.batch.quadratic_planner import QuadraticForm
from secure_infer.ckks.parameters import MAX_MODULUS_BITS
from secure_infer.ckks.plan import NOISE, WINDOW, Privacy
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import Head, InputContract, Linear, Polynomial, Square
from secure_infer.heads.network import Network


def affine(features: int, outputs: int, size: float, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    return Network(
        [], Linear(rng.normal(size=(outputs, features)) * size / math.sqrt(features), rng.normal(size=outputs))
    )


def steepness(program: AffineProgram) -> float:
    """Largest L2 norm of a row of the weights as they are evaluated, in logits."""
    plan = program.plan
    scale = plan.unit * (plan.parameters.data_modulus // plan.first_prime) / plan.input_scale
    return float(np.linalg.norm(program.weights, axis=1).max()) / scale


def test_a_typical_linear_head_takes_three_kilobytes_a_record() -> None:
    plan = choose(affine(384, 10, 17.0), InputContract(384, 1.0, 1.0)).plan
    assert (str(plan.parameters), plan.layout) == ("N=4096 [60]", Layout.COEFFICIENTS)
    assert plan.smudging_bits >= 18
    assert plan.query_bytes <= 3000 * plan.records
    assert plan.key_bytes < 50_000


@pytest.mark.parametrize(("smudging", "kilobytes"), [(FAST_SMUDGING, 6.0), (20, 7.8)])
def test_the_packaged_head_with_a_hidden_layer(smudging: int, kilobytes: float) -> None:
    head = Head.load(Path(secure_infer.__file__).parent / "models" / "icd10-chapter.head")
    plan = choose(Network.of(head.layers), head.contract, smudging=smudging).plan
    assert plan.parameters.degree == plan.records == 8192
    assert plan.smudging_bits >= smudging
    assert plan.error_bound <= 1e-3
    assert plan.query_bytes <= 1000 * kilobytes * plan.records


@settings(max_examples=30, deadline=None)
@example(1, 1, 0, 0.03125, 0.03125, None, 1e-3, 2, Privacy.BOTH_PRIVATE)
@given(
    features=st.integers(1, 400),
    outputs=st.integers(1, 40),
    units=st.integers(0, 12),
    size=st.floats(1e-3, 30),
    bound=st.floats(0.01, 10),
    norm=st.none() | st.floats(0.1, 5),
    error=st.sampled_from([1e-3, 1e-2, 9e-2]),
    smudging=st.sampled_from([2, 10, 18]),
    privacy=st.sampled_from(list(Privacy)),
)
def test_every_plan_keeps_the_rule(
    features: int,
    outputs: int,
    units: int,
    size: float,
    bound: float,
    norm: float | None,
    error: float,
    smudging: int,
    privacy: Privacy,
) -> None:
    network, contract = affine(features, outputs, size), InputContract(features, bound, norm)
    if units:
        rng = np.random.default_rng(units)
        first = Linear(rng.normal(size=(units, features)) / math.sqrt(features), rng.normal(size=units))
        last = Linear(rng.normal(size=(outputs, units)) * size)
        network = Network.of([first, Polynomial(rng.normal(size=(units, 3))), last])
    tried = plan_batch(network, contract, privacy=privacy, error=error, smudging=smudging)
    assert len(tried) in (1, len(MAX_MODULUS_BITS))
    for program in (candidate.program for candidate in tried if candidate.program is not None):
        plan = program.plan
        plan.check_for(contract, outputs, privacy)
        assert plan.layout is (Layout.SLOTS if units else Layout.COEFFICIENTS)
        assert plan.first_prime / plan.unit >= WINDOW * plan.answer_range * (math.sqrt(2) if units else 1)
        assert plan.error_bound <= error * (1 + 1e-9)
        assert plan.query_bytes == plan.features * plan.ciphertext_bytes
        if privacy is Privacy.BOTH_PRIVATE:
            steepest = QuadraticForm(network, contract).steepest if units else steepness(program)
            # Weights that round to nothing leave nothing to smudge.
            reached = (
                math.log2(plan.flood / (NOISE * plan.spread * steepest / plan.input_scale)) if steepest else math.inf
            )
            assert reached + 0.1 >= plan.smudging_bits >= smudging


def test_what_cannot_fit_is_a_named_error() -> None:
    with pytest.raises(UnsupportedHead, match="larger error"):
        choose(Network([], Linear(np.full((2, 4), 1e30))), InputContract(4, 1e6))
    curve = Network.of([Linear(np.full((2, 4), 1e9)), Square(), Linear(np.full((2, 2), 1e9))])
    with pytest.raises(UnsupportedHead, match="larger error"):
        choose(curve, InputContract(4, 1e6))


@pytest.fixture(scope="module")
def slots() -> BatchPlan:
    network = Network.of([Linear(np.ones((2, 3))), Square(), Linear(np.ones((1, 2)))])
    return choose(network, InputContract(3, 1.0, 1.0), smudging=10).plan


@pytest.mark.parametrize(
    "change",
    [
        {"unit": 0.0},
        {"unit": 2.0**60},
        {"unit": float("nan")},
        {"answer_range": 2.0**40},
        {"answer_range": 3.0},
        {"layout": "rows"},
        {"flood": 0.0},
        {"error_bound": 1e-9},
        {"answer_bits": 7},
        {"features": 0},
        {"input_scale": 0},
        {"privacy": Privacy.INPUT_PRIVATE},
    ],
)
def test_unsound_plans_are_refused(slots: BatchPlan, change: dict) -> None:
    with pytest.raises(PlanRefused):
        replace(slots, **change).check()


def test_a_plan_for_another_model_or_level_is_refused(slots: BatchPlan) -> None:
    slots.check_for(InputContract(3, 1.0, 1.0), 1, Privacy.BOTH_PRIVATE)
    for contract, outputs in ((InputContract(4, 1.0, 1.0), 1), (InputContract(3, 1.0, 1.0), 2)):
        with pytest.raises(PlanRefused):
            slots.check_for(contract, outputs, Privacy.BOTH_PRIVATE)
    with pytest.raises(PlanRefused, match="52 bits"):
        replace(slots, input_scale=2**52).check_for(InputContract(3, 1.0, 1.0), 1, Privacy.BOTH_PRIVATE)


def test_equal_inputs_give_equal_plans(slots: BatchPlan) -> None:
    network = Network.of([Linear(np.ones((2, 3))), Square(), Linear(np.ones((1, 2)))])
    assert choose(network, InputContract(3, 1.0, 1.0), smudging=10).plan.digest == slots.digest
    assert replace(slots, unit=slots.unit / 2).digest != slots.digest
