"""Choosing among kinds of plans: what is tried, in which order, what is offered, and what is said when nothing is left."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.ckks import planner
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.coefficient import planner as coefficient_planner
from secure_infer.ckks.costs import Operation
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING, Privacy
from secure_infer.ckks.planner import Candidate, Rejected, offers
from secure_infer.ckks.slots import SlotPlan
from secure_infer.ckks.slots.planner import Demand
from secure_infer.heads import Head, Polynomial
from secure_infer.heads.network import Network
from secure_infer.heads.split import private_network
from shared import flat_costs, hidden_head, linear_head

LAN = Link.parse("lan")
COSTS = flat_costs()


def explored(head: Head, link: Link = LAN, **asked: object) -> planner.Exploration:
    network = private_network(head)
    wanted = planner.demand(network, head.contract, **asked)  # type: ignore[arg-type]
    return planner.explore(network, head.contract, wanted, COSTS, link)


@pytest.fixture(scope="module")
def few() -> planner.Exploration:
    """A hidden layer on few features: both kinds can be."""
    return explored(hidden_head((6, 5, 2), Polynomial([0.1, 1.0, 0.2])))


# What is asked.


def test_an_affine_head_takes_the_defaults_whatever_its_range() -> None:
    network = private_network(linear_head(8, 3, scale=1e3))
    assert planner.demand(network, linear_head(8, 3).contract) == Demand(
        Privacy.BOTH_PRIVATE, DEFAULT_ERROR, DEFAULT_SMUDGING
    )


def test_the_error_of_hidden_layers_grows_with_their_range() -> None:
    small = hidden_head((6, 5, 2))
    assert planner.demand(private_network(small), small.contract).error == DEFAULT_ERROR
    large = replace(small.contract, bound=100.0, norm=100.0)
    network = private_network(small)
    error = planner.demand(network, large).error
    share = planner.RANGE_SHARE * planner.largest_output(network, large)
    assert DEFAULT_ERROR < share <= error <= 1.5 * share
    assert math.frexp(error)[0] in (0.5, 0.75)  # what is published tells two significant bits of the range, no more
    assert planner.demand(network, large, error=1e-4).error == 1e-4
    assert planner.demand(network, large, smudging=7).smudging == 7


# What is tried.


def test_an_affine_head_is_planned_by_coefficients_alone() -> None:
    head = linear_head(40, 5)
    for privacy in Privacy:
        found = explored(head, privacy=privacy)
        assert {candidate.kind for candidate in found.candidates} == {"coefficient"}
        linear = head.as_linear()
        assert linear is not None
        tried = coefficient_planner.explore(linear, head.contract, privacy=privacy)
        assert {c.plan.digest for c in found.candidates} == {t.plan.digest for t in tried if t.plan}


def test_few_features_have_both_kinds(few: planner.Exploration) -> None:
    assert {candidate.kind for candidate in few.candidates} == {"monomials", "slots"}
    kinds = {"monomials": CoefficientPlan, "slots": SlotPlan}
    for candidate in few.candidates:
        assert isinstance(candidate.plan, kinds[candidate.kind])
        assert (candidate.plan.features, candidate.plan.outputs) == (6, 2)
        assert candidate.compile().plan == candidate.plan


def test_many_features_have_slots_and_say_why_no_monomials() -> None:
    found = explored(hidden_head((600, 4, 2)))
    assert {candidate.kind for candidate in found.candidates} == {"slots"}
    assert any(r.kind == "monomials" and "monomials are sent" in r.reason for r in found.rejected)


def test_two_hidden_layers_have_slots_and_monomials() -> None:
    found = explored(hidden_head((6, 4, 4, 2), seed=1))
    assert {candidate.kind for candidate in found.candidates} == {"slots", "monomials"}


def test_every_candidate_is_one_that_a_client_accepts(few: planner.Exploration) -> None:
    contract = hidden_head((6, 5, 2)).contract
    for candidate in few.candidates:
        candidate.plan.check_for(contract, 2, Privacy.BOTH_PRIVATE)
        assert (candidate.cost.bytes_up, candidate.cost.bytes_down) == (
            candidate.plan.query_bytes,
            candidate.plan.answer_bytes,
        )
        assert candidate.plan.error_bound <= DEFAULT_ERROR
        assert candidate.plan.smudging_bits >= DEFAULT_SMUDGING


def test_the_quickest_comes_first(few: planner.Exploration) -> None:
    totals = [candidate.cost.total for candidate in few.candidates]
    assert totals == sorted(totals)
    assert min(totals) > 0


def test_equal_questions_have_equal_answers(few: planner.Exploration) -> None:
    again = explored(hidden_head((6, 5, 2), Polynomial([0.1, 1.0, 0.2])))
    assert [c.plan.digest for c in again.candidates] == [c.plan.digest for c in few.candidates]


def test_the_machine_and_the_link_decide_the_order() -> None:
    """Dear products make few of them quick; a slow link, few bytes."""
    head = linear_head(384, 21, scale=17.0)
    network = private_network(head)
    wanted = planner.demand(network, head.contract)

    def first(multiply: float, link: str) -> CoefficientPlan:
        dear = {s: t * multiply if s.operation is Operation.MULTIPLY_PLAIN else t for s, t in COSTS.measured.items()}
        found = planner.explore(network, head.contract, wanted, replace(COSTS, measured=dear), Link.parse(link))
        plan = found.candidates[0].plan
        assert isinstance(plan, CoefficientPlan)
        return plan

    plans = [c.plan for c in explored(head).candidates]
    assert first(1e6, "loopback").products == min(plan.products for plan in plans)
    slow = first(1.0, "1kbit,0us")
    assert slow.query_bytes + slow.answer_bytes == min(plan.query_bytes + plan.answer_bytes for plan in plans)


# What is offered.


def candidate(server: int, up: int, down: int) -> Candidate:
    """One that is only looked at for its costs."""
    cost = Estimate(client=1.0, server=float(server), network=0.0, bytes_up=up, bytes_down=down)
    return Candidate("x", None, cost, lambda: None)  # type: ignore[arg-type, return-value]


def burden(one: Candidate) -> tuple[float, int]:
    return one.cost.server, one.cost.bytes_up + one.cost.bytes_down


def test_offers_are_what_nothing_beats() -> None:
    quick, small, both, beaten = candidate(1, 50, 50), candidate(9, 1, 1), candidate(5, 20, 20), candidate(5, 30, 20)
    assert offers([beaten, quick, both, small]) == [quick, both, small]
    assert offers([]) == []


def test_the_first_of_equals_is_offered() -> None:
    twins = [candidate(1, 2, 3), candidate(1, 3, 2)]
    assert offers(twins) == twins[:1]


@given(st.lists(st.builds(candidate, *[st.integers(0, 6)] * 3), max_size=12))
def test_offers_are_the_pareto_front(candidates: list[Candidate]) -> None:
    kept = offers(candidates)
    assert bool(kept) == bool(candidates)
    assert kept == [one for one in candidates if any(one is other for other in kept)]
    for one in candidates:
        no_worse = [o for o in kept if all(a <= b for a, b in zip(burden(o), burden(one), strict=True))]
        assert no_worse
        if any(one is other for other in kept):
            assert no_worse == [one]


def test_offers_of_a_real_head_are_among_its_candidates(few: planner.Exploration) -> None:
    kept = offers(few.candidates)
    assert few.candidates[0].plan.digest in {c.plan.digest for c in few.candidates}
    assert {c.plan.digest for c in kept} <= {c.plan.digest for c in few.candidates}
    assert len({c.plan.digest for c in kept}) == len(kept)


# What is said when nothing is left.


@pytest.mark.parametrize("head", [linear_head(8, 3), hidden_head((6, 4, 2))], ids=["affine", "hidden"])
def test_what_cannot_be_is_refused_with_reasons_and_advice(head: Head) -> None:
    found = explored(head, error=1e-17)
    assert not found.candidates
    assert found.rejected
    network = private_network(head)
    message = planner.refusal(found.rejected, network, planner.demand(network, head.contract, error=1e-17)).message
    for words in ("both-private", "error 1e-17", "18 smudging bits", "larger error", "weight decay"):
        assert words in message
    assert " -> ".join(map(str, network.widths)) in message
    assert found.rejected[-1].reason in message


def test_a_refusal_says_a_reason_once() -> None:
    network = Network((), linear_head(4, 2).as_linear())  # type: ignore[arg-type]
    rejected = [Rejected("slots", f"N={n}", reason) for n, reason in enumerate(["first", *["same"] * 9, "last"])]
    message = planner.refusal(rejected, network, Demand()).message
    assert "first; same; last." in message


def test_nothing_in_a_refusal_tells_weights() -> None:
    """It goes to clients: two heads of one shape and one range, refused alike."""
    messages = []
    for seed in (1, 2):
        head = linear_head(5, 2, seed=seed)
        network = private_network(head)
        wanted = planner.demand(network, head.contract, error=1e-17)
        messages.append(planner.refusal(explored(head, error=1e-17).rejected, network, wanted).message)
        weights = network.output.weight
        assert not any(f"{abs(value):.4g}" in messages[-1] for value in np.ravel(weights))
