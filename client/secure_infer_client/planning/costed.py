"""Plans with what a query takes, and what many records take with them.

A plan of single queries is asked one query a record, several in a call; a batch plan takes whole batches. With 64 queries
a call and 8,192 records a batch, 10,000 records are 10,000 queries in 157 calls, or 2 batches in 2 calls. Which mixture of
the two is quickest, `ckks.allocation` says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import Plan, QueryPlan
from secure_infer.ckks.planner import BatchCandidate, Candidate, batch_offers, offers
from secure_infer_client.choice import Offer, usable

P = TypeVar("P", bound=Plan, covariant=True)


@dataclass(frozen=True)
class Costed(Generic[P]):
    """A plan and what one query takes: for a batch plan, one whole batch. offered: a server would offer it to clients."""

    kind: str
    plan: P
    cost: Estimate
    offered: bool


Single = Costed[QueryPlan]
Batch = Costed[BatchPlan]


@dataclass(frozen=True)
class Cohort:
    """What a number of records takes with one plan, its keys carried first, calls one after another."""

    way: Costed[Plan]
    queries: int
    calls: int
    cost: Estimate


def of_candidates(candidates: Sequence[Candidate]) -> list[Single]:
    """The planner's candidates, in their order."""
    offered = {candidate.plan.digest for candidate in offers(candidates)}
    return [Costed(one.kind, one.plan, one.cost, one.plan.digest in offered) for one in candidates]


def of_batches(candidates: Sequence[BatchCandidate]) -> list[Batch]:
    """The planner's batch plans, in their order."""
    offered = {candidate.plan.digest for candidate in batch_offers(candidates)}
    return [Costed(one.kind, one.plan, one.cost, one.plan.digest in offered) for one in candidates]


def of_offers(offered: Iterable[Offer], unit_costs: str, link: Link) -> tuple[list[Single], list[Batch]]:
    """A server's offers as its client reckons with them, the quickest first (of batches, the quickest a record).

    unit_costs: the server's. Raises PlanRefused for figures that cannot be.
    """
    single: list[Single] = []
    batches: list[Batch] = []
    for offer in offered:
        query, whole = usable([offer], link, unit_costs)
        if query is not None:
            single.append(Costed(query.plan.kind, query.plan, query.cost, offered=True))
        batches += [Costed(batch.plan.kind, batch.plan, batch.cost, offered=True) for batch in whole]
    single.sort(key=lambda way: way.cost.total)
    batches.sort(key=lambda way: way.cost.total / way.plan.records)
    return single, batches


def records_of(plan: Plan) -> int:
    """Records that one query answers at most."""
    return plan.records if isinstance(plan, BatchPlan) else 1


def cohort(way: Costed[Plan], records: int, link: Link) -> Cohort:
    """What that many records take: whole queries, as many in a call as the plan says."""
    queries = -(-records // records_of(way.plan))
    calls = -(-queries // way.plan.queries_per_call)
    up, down = queries * way.cost.bytes_up, queries * way.cost.bytes_down
    network = link.transfer(up, down, calls)
    if way.plan.key_bytes:
        network += link.transfer(way.plan.key_bytes, 0)
    cost = Estimate(queries * way.cost.client, queries * way.cost.server, network, up, down)
    return Cohort(way, queries, calls, cost)


def batch_from(single: Sequence[Single], batches: Sequence[Batch], link: Link) -> int | None:
    """The fewest records in a batch for which a batch takes less time than single queries by any plan do.

    None: there is no batch plan, or a full batch takes longer than single queries.
    """
    found = []
    for batch in batches:
        most = batch.plan.records
        whole = cohort(batch, most, link).cost.total

        def beaten(records: int, whole: float = whole) -> bool:
            return all(cohort(way, records, link).cost.total > whole for way in single)

        # The time of single queries grows with their number, so once they are beaten they stay beaten.
        least = 1 + bisect_left(range(1, most + 1), True, key=beaten)
        if least <= most:
            found.append(least)
    return min(found, default=None)
