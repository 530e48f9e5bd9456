"""Divides records among plans: full batches, a batch that is not full, single queries; whatever takes the least time.

A batch takes the same time and bytes however many records it holds, a single query its own. With batches of 4096 records
at 2 s and single queries at 2 ms: 500 records go one by one (1 s), 3000 as one batch (2 s rather than 6), 4596 as a full
batch and 500 single queries.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import QueryPlan
from secure_infer.errors import InternalFault


class CostedQuery(Protocol):
    """A plan for single queries; cost: of one query, the round trip included."""

    @property
    def plan(self) -> QueryPlan: ...
    @property
    def cost(self) -> Estimate: ...


class CostedBatch(Protocol):
    """A batch plan; cost: of one batch."""

    @property
    def plan(self) -> BatchPlan: ...
    @property
    def cost(self) -> Estimate: ...


Query = TypeVar("Query", bound=CostedQuery)
Batch = TypeVar("Batch", bound=CostedBatch)


@dataclass(frozen=True)
class Share(Generic[Query, Batch]):
    """The next `records` records, all of them together at `cost`; one of `query` and `batch` takes them."""

    query: Query | None
    batch: Batch | None
    records: int
    cost: Estimate

    @property
    def plan(self) -> QueryPlan | BatchPlan:
        """The plan that takes them."""
        if self.batch is not None:
            return self.batch.plan
        if self.query is not None:
            return self.query.plan
        raise InternalFault("allocation: expected a plan")


@dataclass(frozen=True)
class Allocation(Generic[Query, Batch]):
    """Shares in the order of the records."""

    shares: tuple[Share[Query, Batch], ...]

    @property
    def seconds(self) -> float:
        return sum(share.cost.total for share in self.shares)


def cheapest_for(
    records: int, query: Query | None, batches: Sequence[Batch], link: Link, held: Set[str] = frozenset()
) -> Allocation[Query, Batch]:
    """The allocation that takes the least time. `query` or one of `batches` has to be there.

    held: digests of plans whose key material the server has already; the others' has to be carried first.
    """
    if records == 0:
        return Allocation(())
    found: list[Allocation[Query, Batch]] = []
    if query is not None:
        found.append(Allocation((Share(query, None, records, _queries(query, records, link, held)),)))
    for batch in batches:
        taken = min(records, max(1, records // batch.plan.records) * batch.plan.records)
        cost = _times(batch.cost, -(-taken // batch.plan.records), _key_seconds(batch.plan, link, held))
        rest = cheapest_for(records - taken, query, batches, link, held | {batch.plan.digest})
        found.append(Allocation((Share(None, batch, taken, cost), *rest.shares)))
    if not found:
        raise InternalFault("allocation: expected a plan")
    return min(found, key=lambda allocation: allocation.seconds)


def _key_seconds(plan: QueryPlan | BatchPlan, link: Link, held: Set[str]) -> float:
    return 0.0 if plan.digest in held or not plan.key_bytes else link.transfer(plan.key_bytes, 0)


def _queries(query: CostedQuery, records: int, link: Link, held: Set[str]) -> Estimate:
    """Several queries share a call, and so its round trip."""
    calls = -(-records // query.plan.queries_per_call)
    saved = (records - calls) * link.round_trip
    return _times(query.cost, records, _key_seconds(query.plan, link, held) - saved)


def _times(cost: Estimate, count: int, network: float) -> Estimate:
    """`count` times that cost, and so many seconds more on the network."""
    return Estimate(
        client=count * cost.client,
        server=count * cost.server,
        network=count * cost.network + network,
        bytes_up=count * cost.bytes_up,
        bytes_down=count * cost.bytes_down,
    )
