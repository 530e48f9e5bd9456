"""What the planner chooses, states and refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import seal
from secure_infer.ckks.coefficient import CoefficientPlan, planner
from secure_infer.ckks.parameters import MAX_MODULUS_BITS
from secure_infer.ckks.plan import NOISE, WINDOW, Privacy, forged_key_cap
from secure_infer.ckks.slots import SlotPlan
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import InputContract, Linear
from shared import linear_head


def chosen(
    features: int, outputs: int, scale: float = 1.0, bound: float = 1.0, norm: float | None = 1.0, **asked: object
) -> CoefficientPlan:
    head = linear_head(features, outputs, scale=scale, bound=bound, norm=norm)
    linear = head.as_linear()
    assert linear is not None
    return planner.choose(linear, head.contract, **asked)  # type: ignore[arg-type]


def test_the_worked_example_of_the_plan() -> None:
    """d = 2, K = 2: the product's coefficients 1 and 3 are the logits."""
    x, w = np.array([3, 5]), np.array([[1, 2], [7, 11]])
    polynomial = np.array([w[0, 1], w[0, 0], w[1, 1], w[1, 0]])
    product = np.convolve(x, polynomial)
    assert [product[1], product[3]] == (w @ x).tolist()


def test_a_typical_head_takes_one_product() -> None:
    plan = chosen(384, 21, scale=17.0)
    assert (str(plan.parameters), plan.products, plan.ciphertexts) == ("N=8192 [60]", 1, 1)
    assert plan.smudging_bits >= 18
    assert plan.error_bound <= 1e-3
    assert plan.query_bytes <= 64_000
    assert plan.answer_bytes <= 40_000


def test_a_small_range_takes_a_small_ring() -> None:
    assert chosen(384, 10).parameters.degree == 2048


@settings(max_examples=60, deadline=None)
@given(
    features=st.integers(1, 3000),
    outputs=st.integers(1, 200),
    scale=st.floats(1e-3, 100),
    bound=st.floats(0.01, 10),
    norm=st.none() | st.floats(0.1, 10),
    error=st.sampled_from([1e-4, 1e-3, 2.7e-3, 1.5e-2, 9e-2]),
    privacy=st.sampled_from(list(Privacy)),
)
def test_every_plan_keeps_the_rule(
    features: int, outputs: int, scale: float, bound: float, norm: float | None, error: float, privacy: Privacy
) -> None:
    head = linear_head(features, outputs, scale=scale, bound=bound, norm=norm)
    linear = head.as_linear()
    assert linear is not None
    plan = planner.choose(linear, head.contract, privacy=privacy, error=error)
    plan.check_for(head.contract, outputs, privacy)
    largest = planner.largest_logit(linear, head.contract)
    assert plan.parameters.total_bits <= MAX_MODULUS_BITS[plan.parameters.degree]
    assert plan.first_prime / plan.answer_unit >= WINDOW * plan.answer_range >= WINDOW * largest
    assert plan.error_bound <= error * (1 + 1e-9)
    if privacy is Privacy.BOTH_PRIVATE:
        weights = planner.integer_weights(linear, plan.weight_scale).astype(float)
        worst = max(np.linalg.norm(weights[list(plan.rows(p))]) for p in range(plan.products))
        reached = math.log2(plan.flood * plan.input_scale * plan.weight_scale / (NOISE * worst)) if worst else 40
        assert reached + 1e-6 >= plan.smudging_bits >= 18
        assert plan.answers_per_product <= max(
            1, forged_key_cap(plan.parameters.degree, plan.first_prime / plan.answer_unit, plan.flood)
        )


@pytest.mark.parametrize("bits", [7, 18, 30, 40])
def test_more_smudging_is_to_be_had(bits: int) -> None:
    plan = chosen(384, 21, scale=17.0, smudging=bits)
    assert plan.smudging_bits >= bits


@pytest.mark.parametrize("error", [1e-1, 1e-2, 1e-4, 1e-5])
def test_other_precision_is_to_be_had(error: float) -> None:
    plan = chosen(384, 21, scale=17.0, error=error)
    assert plan.error_bound <= error


def test_zero_weights() -> None:
    zeros = Linear(np.zeros((3, 5)), [1.0, 2.0, 3.0])
    for privacy in Privacy:
        planner.choose(zeros, InputContract(5, 1.0), privacy=privacy).check()


def test_what_cannot_fit_is_a_named_error_that_says_what_would() -> None:
    huge = Linear(np.full((2, 4), 1e30))
    with pytest.raises(UnsupportedHead, match="larger error"):
        planner.choose(huge, InputContract(4, 1e6))


def test_equal_inputs_give_equal_plans() -> None:
    assert chosen(30, 2).digest == chosen(30, 2).digest
    assert chosen(30, 2).digest != chosen(31, 2).digest


@pytest.mark.parametrize(
    "change",
    [
        {"answer_range": 2.0**40},
        {"answer_range": 3.0},
        {"answer_range": 2.0**-20},
        {"input_scale": 2**62},
        {"input_scale": 0},
        {"answers_per_product": 22},
        {"answers_per_product": 0},
        {"flood": 0.0},
        {"flood": 1.0},
        {"error_bound": 1e-9},
        {"error_bound": float("nan")},
        {"smudging_bits": 0},
        {"answer_bits": 7},
        {"answer_bits": 64},
        {"privacy": Privacy.INPUT_PRIVATE},
        {"features": 0},
    ],
)
def test_unsound_plans_are_refused(change: dict) -> None:
    with pytest.raises(PlanRefused):
        replace(chosen(384, 21, scale=17.0), **change).check()


def test_a_plan_for_another_model_or_level_is_refused() -> None:
    plan = chosen(8, 3)
    contract = InputContract(8, 1.0, 1.0)
    plan.check_for(contract, 3, Privacy.BOTH_PRIVATE)
    for other, outputs in ((InputContract(9, 1.0, 1.0), 3), (contract, 4), (InputContract(8, 1e6, None), 3)):
        with pytest.raises(PlanRefused):
            replace(plan, input_scale=2**50).check_for(other, outputs, Privacy.BOTH_PRIVATE)
    fast = chosen(8, 3, privacy=Privacy.INPUT_PRIVATE)
    with pytest.raises(PlanRefused, match="privacy"):
        fast.check_for(contract, 3, Privacy.BOTH_PRIVATE)


def significant_bits(value: int) -> int:
    return value.bit_length() - ((value & -value).bit_length() - 1)


@pytest.mark.parametrize("privacy", list(Privacy))
@pytest.mark.parametrize(("features", "outputs"), [(384, 21), (8, 3), (30, 1)])
def test_a_published_scale_tells_five_bits_of_the_weights(features: int, outputs: int, privacy: Privacy) -> None:
    head = linear_head(features, outputs)
    linear = head.as_linear()
    assert linear is not None
    for tried in planner.explore(linear, head.contract, privacy=privacy):
        if tried.plan is not None:
            assert significant_bits(tried.plan.weight_scale) <= 5


def test_a_plan_does_not_ask_for_keys_without_end() -> None:
    moves = tuple((element, 13) for element in range(3, 131, 2))
    primes = seal.parameters(32768, (60,) * 13, 60)
    plan = SlotPlan(
        parameters=primes,
        privacy=Privacy.BOTH_PRIVATE,
        features=8,
        outputs=2,
        input_scale=1 << 20,
        answer_range=1.0,
        flood=1e-4,
        smudging_bits=18,
        error_bound=1e-3,
        failure_probability=1e-8,
        answer_bits=0,
        answers_per_product=2,
        inputs=1,
        period=4,
        parts=4,
        shifts=1,
        unit=primes.data_primes[0] / 4,
        moves=moves,
        products_at=1,
    )
    assert plan.key_bytes > 2 << 30
    with pytest.raises(PlanRefused, match="keys"):
        plan.check()
