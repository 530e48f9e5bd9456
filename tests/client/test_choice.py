"""Which offer a client takes: its link and the server's figures decide, and figures that cannot be are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from secure_infer.ckks import planner
from secure_infer.ckks.coefficient import planner as coefficient_planner
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import QueryPlan
from secure_infer.errors import PlanRefused
from secure_infer.heads.split import private_network
from secure_infer_client.choice import Offer, usable
from shared import flat_costs, linear_head

COSTS = flat_costs(1e-6, 1e-12).to_json()  # a client that takes no time itself


def quickest(offers: list[Offer], link: Link, unit_costs: str) -> QueryPlan:
    """The plan for single queries that is taken."""
    query, batches = usable(offers, link, unit_costs)
    assert query is not None
    assert not batches
    return query.plan


FAST, SLOW = Link.parse("loopback"), Link.parse("1mbit,10ms")


@pytest.fixture(scope="module")
def plans() -> tuple[QueryPlan, QueryPlan]:
    """(the plan of the fewest bytes, another of more)."""
    head = linear_head(384, 21, scale=17.0)
    linear = head.as_linear()
    assert linear is not None
    found = [tried.plan for tried in coefficient_planner.explore(linear, head.contract) if tried.plan]
    found.sort(key=lambda plan: plan.query_bytes + plan.answer_bytes)
    small, large = found[0], found[-1]
    assert small.query_bytes + small.answer_bytes < 0.7 * (large.query_bytes + large.answer_bytes)
    return small, large


def test_the_link_changes_the_choice(plans: tuple[QueryPlan, QueryPlan]) -> None:
    """A hundred kilobytes less are worth 20 ms of the server at 1 Mbit/s, and not at 10 Gbit/s."""
    small, large = plans
    offers = [Offer(small, 0.030), Offer(large, 0.010)]
    assert quickest(offers, FAST, COSTS) is large
    assert quickest(offers, SLOW, COSTS) is small
    assert quickest(offers[::-1], FAST, COSTS) is large
    assert quickest(offers[::-1], SLOW, COSTS) is small


def test_up_and_down_are_counted_apart(plans: tuple[QueryPlan, QueryPlan]) -> None:
    by_up, by_down = sorted(plans, key=lambda plan: plan.query_bytes), sorted(plans, key=lambda p: p.answer_bytes)
    offers = [Offer(plan, 0.0) for plan in plans]
    assert quickest(offers, Link.parse("1mbit/10gbit,0us"), COSTS) is by_up[0]
    assert quickest(offers, Link.parse("10gbit/1mbit,0us"), COSTS) is by_down[0]


def test_the_clients_own_work_counts(plans: tuple[QueryPlan, QueryPlan]) -> None:
    """Where an encryption takes seconds, the plan with fewer of them is quickest, whatever the server does."""
    slow = flat_costs(1.0).to_json()
    own = [planner.work.of_client(plan).total(flat_costs(1.0)) for plan in plans]
    assert abs(own[0] - own[1]) > 0.1
    expected = plans[0] if own[0] < own[1] else plans[1]
    assert quickest([Offer(plan, 0.0) for plan in plans], FAST, slow) is expected


def test_the_first_of_equals_is_taken(plans: tuple[QueryPlan, QueryPlan]) -> None:
    assert quickest([Offer(plans[1], 0.5), Offer(plans[1], 0.5)], FAST, COSTS) is plans[1]
    assert quickest([Offer(plans[0], 599.0)], FAST, COSTS) is plans[0]


def test_a_servers_own_order_is_a_clients_on_the_same_link() -> None:
    head = linear_head(100, 40)
    network = private_network(head)
    costs = flat_costs()
    for link in (FAST, SLOW):
        found = planner.explore(network, head.contract, planner.demand(network, head.contract), costs, link)
        offers = [Offer(candidate.plan, candidate.cost.server) for candidate in planner.offers(found.candidates)]
        assert quickest(offers, link, costs.to_json()) == found.candidates[0].plan


# Hostile figures.


@pytest.mark.parametrize("seconds", [-1.0, -1e-300, math.nan, math.inf, -math.inf])
def test_seconds_that_cannot_be_are_refused(plans: tuple[QueryPlan, QueryPlan], seconds: float) -> None:
    for offers in ([Offer(plans[0], seconds)], [Offer(plans[0], 0.1), Offer(plans[1], seconds)]):
        with pytest.raises(PlanRefused, match="expected at most"):
            quickest(offers, FAST, COSTS)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(COSTS)
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "costs",
        "[]",
        "null",
        "[" * 60_000,
        '{"version": 1}',
        " " * (1 << 20),
        changed(lambda v: v.update(version=2)),
        changed(lambda v: v["seconds"].pop("encrypt")),
        changed(lambda v: v["seconds"].update(decrypt=[[8192, 1, 1.0]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, -1.0]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, 0.0]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, math.nan]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, math.inf]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, 10**400]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 10**9, 1.0]])),
        changed(lambda v: v["seconds"].update(encrypt=[[1000, 1, 1.0]])),
        changed(lambda v: v["seconds"].update(encrypt=[[8192, 1, "1"]])),
    ],
    ids=lambda text: text[:30] if len(text) < 60 else f"{len(text)} characters",
)
def test_hostile_unit_costs_are_refused(plans: tuple[QueryPlan, QueryPlan], text: str) -> None:
    with pytest.raises(PlanRefused, match="costs"):
        quickest([Offer(plans[0], 0.1)], FAST, text)
