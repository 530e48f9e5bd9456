"""Monomials: how many, how long, the affine map they turn a network into, and both sides of a plan of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import keymaterial
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.coefficient import CoefficientPlan, LinearEvaluator, pack_input, planner
from secure_infer.ckks.coefficient.lift import MAX_DEEP_TERMS, MAX_LIFT, MAX_TERMS, count, lift, lifted, lifted_contract
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import Head, InputContract, Polynomial, Square
from secure_infer.heads.split import private_network
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import load_query
from shared import hidden_head, unit_rows

UNIT = {"bound": 1.0, "norm": 1.0}


def curve(degree: int, units: int, seed: int = 0) -> Polynomial:
    """A polynomial of that degree for each unit."""
    return Polynomial(np.random.default_rng(seed).normal(size=(units, degree + 1)) / np.arange(1, degree + 2))


def edge_rows(contract: InputContract, number: int, seed: int = 3) -> np.ndarray:
    """Rows as long as the contract lets them be, half of them with every feature at the bound where that is allowed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, contract.features))
    x[::2] = np.sign(x[::2])
    x = x * contract.largest_norm / np.linalg.norm(x, axis=1, keepdims=True)
    return np.clip(x, -contract.bound, contract.bound)


@given(st.integers(1, 7), st.integers(1, 4))
def test_the_number_of_monomials(features: int, degree: int) -> None:
    powers = itertools.product(range(degree + 1), repeat=features)
    assert count(features, degree) == sum(1 <= sum(row) <= degree for row in powers)
    assert len(lift(np.ones(features), degree, 1.0)) == count(features, degree)


def test_the_worked_example_of_the_module() -> None:
    """d = 2, D = 2: (x0, x1, x0², √2 x0 x1, x1²)."""
    assert lift(np.array([3.0, 5.0]), 2, 1.0) == pytest.approx([3, 5, 9, math.sqrt(2) * 15, 25])
    assert lift(np.array([3.0, 5.0]), 2, 10.0) == pytest.approx([0.3, 0.5, 0.09, math.sqrt(2) * 0.15, 0.25])


@given(
    st.integers(1, 6), st.integers(1, 4), st.floats(0.01, 50), st.none() | st.floats(0.01, 50), st.integers(0, 10**6)
)
def test_monomials_keep_their_contract(features: int, degree: int, bound: float, norm: float | None, seed: int) -> None:
    """Those of degree j are as long as |x|^j: on the edge, divided by the largest norm, exactly one."""
    contract = InputContract(features, bound, norm)
    kept = lifted_contract(contract, degree)
    assert kept.features == count(features, degree)
    for x in edge_rows(contract, 4, seed):
        monomials = lift(x, degree, contract.largest_norm)
        kept.check(monomials[None])
        stop = 0
        for power in range(1, degree + 1):
            start, stop = stop, count(features, power)
            length = (np.linalg.norm(x) / contract.largest_norm) ** power
            assert np.linalg.norm(monomials[start:stop]) == pytest.approx(length, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.integers(2, 4), st.floats(0.1, 20), st.integers(0, 99)
)
def test_lifted_is_the_network(features: int, units: int, outputs: int, degree: int, norm: float, seed: int) -> None:
    head = hidden_head((features, units, outputs), curve(degree, units, seed), bound=norm, norm=norm, seed=seed)
    linear = lifted(private_network(head), head.contract)
    x = edge_rows(head.contract, 3, seed)
    monomials = np.stack([lift(row, degree, head.contract.largest_norm) for row in x])
    exact = head.evaluate(x)
    assert linear(monomials) == pytest.approx(exact, rel=1e-9, abs=1e-9 * np.abs(exact).max())


def test_what_cannot_be_lifted_is_a_named_error() -> None:
    deep = hidden_head((3, 4, 4, 4, 4, 2))
    with pytest.raises(UnsupportedHead, match="degree 16 in 3 features"):
        lifted(private_network(deep), deep.contract)
    broad = hidden_head((30, 4, 4, 2))
    with pytest.raises(UnsupportedHead, match=f"at most degree {MAX_LIFT} and {MAX_DEEP_TERMS} monomials"):
        lifted(private_network(broad), broad.contract)
    wide = hidden_head((512, 2, 2))
    assert count(512, 2) > MAX_TERMS
    with pytest.raises(UnsupportedHead, match="at most"):
        lifted(private_network(wide), wide.contract)


def plan_of(head: Head, degree: int, privacy: Privacy, error: float) -> CoefficientPlan:
    """The cheapest plan of a head's monomials."""
    linear = lifted(private_network(head), head.contract)
    plan = planner.choose(linear, lifted_contract(head.contract, degree), privacy=privacy, error=error)
    return replace(plan, features=head.features, lift=degree, lift_norm=head.contract.largest_norm)


HEADS = {
    "square": (hidden_head((8, 6, 3), bound=2.0, norm=None), 2),
    "cubic": (hidden_head((5, 7, 2), curve(3, 7), **UNIT), 3),
    "quartic": (hidden_head((4, 3, 1), curve(4, 3), **UNIT), 4),
    "two layers": (hidden_head((4, 3, 3, 2), **UNIT), 4),
    "three layers": (hidden_head((2, 3, 2, 3, 1), **UNIT), 8),
    "several ciphertexts": (hidden_head((80, 4, 2), **UNIT), 2),
}


@pytest.mark.parametrize("privacy", list(Privacy))
@pytest.mark.parametrize("name", HEADS)
def test_both_sides_within_the_bound(name: str, privacy: Privacy) -> None:
    head, degree = HEADS[name]
    plan = plan_of(head, degree, privacy, 1e-2)
    plan.check_for(head.contract, head.outputs, privacy)
    key = SecretKey(plan.parameters)
    evaluator = LinearEvaluator(lifted(private_network(head), head.contract), plan)
    blind = None
    if privacy is Privacy.BOTH_PRIVATE:
        public = keymaterial.parse(plan, key.upload(plan).data).public
        assert public is not None
        blind = Blinder(plan, public).blind
    x = np.concatenate([edge_rows(head.contract, 3), 0.5 * unit_rows(1, head.features), np.zeros((1, head.features))])
    for row, exact in zip(x, head.evaluate(x), strict=True):
        query = [key.encrypt(polynomial) for polynomial in pack_input(plan, row)]
        assert len(query) == plan.ciphertexts
        found = read_answer(plan, key.rows(plan), evaluator.evaluate(load_query(plan, query), blind))
        assert np.abs(found - exact).max() <= plan.error_bound


def test_several_ciphertexts_are_several() -> None:
    head, degree = HEADS["several ciphertexts"]
    linear = lifted(private_network(head), head.contract)
    tried = planner.explore(linear, lifted_contract(head.contract, degree), error=1e-2)
    assert max(found.plan.ciphertexts for found in tried if found.plan) > 1


@pytest.mark.parametrize(
    "change", [{"lift": 0}, {"lift": 9}, {"lift_norm": 0.0}, {"lift_norm": math.inf}, {"lift_norm": math.nan}]
)
def test_unsound_lifts_are_refused(change: dict) -> None:
    head, degree = HEADS["cubic"]
    plan = plan_of(head, degree, Privacy.BOTH_PRIVATE, 1e-2)
    with pytest.raises(PlanRefused, match="lift"):
        replace(plan, **change).check()


def test_a_plan_whose_monomials_would_overflow_is_refused() -> None:
    """Monomials stay within one by the norm they are divided by; a smaller one than the contract's lets them grow."""
    head, degree = HEADS["quartic"]
    plan = plan_of(head, degree, Privacy.BOTH_PRIVATE, 1e-2)
    plan.check_for(head.contract, head.outputs, Privacy.BOTH_PRIVATE)
    for norm in (1e-9, 1e-300):
        with pytest.raises(PlanRefused, match="62 bits"):
            replace(plan, lift_norm=norm).check_for(head.contract, head.outputs, Privacy.BOTH_PRIVATE)


def test_large_features_make_no_large_monomials() -> None:
    head = hidden_head((4, 3, 2), bound=1e6, norm=None)
    plan = plan_of(head, 2, Privacy.BOTH_PRIVATE, 1e9)
    assert plan.input_scale * head.contract.bound > 2.0**62
    plan.check_for(head.contract, head.outputs, Privacy.BOTH_PRIVATE)


def test_too_many_monomials_are_refused_before_they_are_formed() -> None:
    """A hostile plan of 4096 features and degree 4: 10^13 monomials."""
    head, degree = HEADS["quartic"]
    plan = replace(plan_of(head, degree, Privacy.BOTH_PRIVATE, 1e-2), features=4096)
    with pytest.raises(PlanRefused, match="monomials"):
        plan.check()


def test_a_square_is_the_polynomial_of_degree_two() -> None:
    first = hidden_head((4, 3, 2), Square())
    second = hidden_head((4, 3, 2), Polynomial([0.0, 0.0, 1.0]))
    rows = [lifted(private_network(head), head.contract) for head in (first, second)]
    assert np.array_equal(rows[0].weight, rows[1].weight)
