"""What the plans offered would take: the server's figures, this client's own work and its own link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.costs import UnitCosts
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import Plan, QueryPlan
from secure_infer.ckks.work import between_queries, of_client
from secure_infer.errors import PlanRefused

MAX_OFFERS = 32
"""Of one model: what is read of a server's offers."""

LONGEST = 600.0
"""Seconds of a query or batch beyond which an offer is not believed."""


@dataclass(frozen=True)
class Offer:
    """A plan and the seconds that the server says a query takes there; of a batch plan, a batch."""

    plan: Plan
    seconds: float


@dataclass(frozen=True)
class Offered:
    """What a server offers for a model. offers: empty when it cannot be evaluated under encryption; `reason` then says
    why. unit_costs: the server's, as JSON."""

    offers: tuple[Offer, ...] = ()
    unit_costs: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Query:
    """A plan for single queries and what one takes."""

    plan: QueryPlan
    cost: Estimate


@dataclass(frozen=True)
class Batch:
    """A batch plan and what a batch takes."""

    plan: BatchPlan
    cost: Estimate


def usable(offers: Sequence[Offer], link: Link, unit_costs: str) -> tuple[Query | None, list[Batch]]:
    """The quickest plan for single queries, where there is one, and every batch plan.

    unit_costs: the server's, as JSON; they stand for this machine's too. Raises PlanRefused for figures that cannot be.
    """
    costs = UnitCosts.from_json(unit_costs)
    queries = [Query(o.plan, _estimate(o, link, costs)) for o in offers if isinstance(o.plan, QueryPlan)]
    batches = [Batch(o.plan, _estimate(o, link, costs)) for o in offers if isinstance(o.plan, BatchPlan)]
    return min(queries, key=lambda query: query.cost.total, default=None), batches


def in_a_row(query: Query, unit_costs: str) -> Query:
    """`query` at what each of many in a row takes: with the masks and blinds that are made ahead of a single one."""
    costs = UnitCosts.from_json(unit_costs)
    client, server = (work.total(costs) for work in between_queries(query.plan))
    return Query(query.plan, replace(query.cost, client=query.cost.client + client, server=query.cost.server + server))


def _estimate(offer: Offer, link: Link, costs: UnitCosts) -> Estimate:
    if not 0 <= offer.seconds <= LONGEST:
        raise PlanRefused(f"offer: {offer.seconds:g} s for a query; expected at most {LONGEST:g}")
    plan = offer.plan
    network = link.transfer(plan.query_bytes, plan.answer_bytes)
    return Estimate(of_client(plan).total(costs), offer.seconds, network, plan.query_bytes, plan.answer_bytes)
