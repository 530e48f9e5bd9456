"""How many rows are scored together: what they share against what a kill loses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from secure_infer.ckks.allocation import cheapest_for
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Link
from secure_infer_client.choice import Offered, in_a_row, usable
from secure_infer_client.cohort.rows import Place, Rejected, Row

SMALLEST, LARGEST = 512, 8192
"""Rows."""

CHARACTERS = 8 << 20
"""Of the texts of a chunk, about; long ones make it end earlier."""

EMBEDDING = 3e-3
"""Seconds a text, about."""

NEAR = 1.1
"""A smaller chunk is taken when it costs at most so many times the best."""


@dataclass(frozen=True)
class Chunk:
    """Rows that were read together, and the place behind them."""

    rows: list[Row]
    rejected: list[Rejected]
    place: Place


def rows_together(offered: Offered, link: Link, *, texts: bool) -> int:
    """Rows of a chunk: full batches of one of the plans offered, or few where single queries are as quick.

    A batch is paid for as a whole, in time and in budgets, so a chunk never is a part of one.
    """
    if not offered.offers:
        return SMALLEST
    query, batches = usable(offered.offers, link, offered.unit_costs)
    query = None if query is None else in_a_row(query, offered.unit_costs)
    each = EMBEDDING if texts else 0.0
    costs = {}
    for rows in sorted({SMALLEST, *(b.plan.records for b in batches if b.plan.records <= LARGEST)}):
        shares = cheapest_for(rows, query, batches, link, {b.plan.digest for b in batches}).shares
        if not any(isinstance(share.plan, BatchPlan) and share.records % share.plan.records for share in shares):
            costs[rows] = each + sum(share.cost.total for share in shares) / rows
    return next((rows for rows in costs if costs[rows] <= NEAR * min(costs.values())), SMALLEST)


def chunks(rows: Iterable[tuple[Row | Rejected, Place]], most: int) -> Iterator[Chunk]:
    """All rows in chunks of at most `most`, and of rejected ones no more than that."""
    taken: list[Row] = []
    rejected: list[Rejected] = []
    characters, place = 0, None
    for one, place in rows:
        if isinstance(one, Row):
            taken.append(one)
            characters += len(one.given)
        else:
            rejected.append(one)
        if len(taken) == most or len(rejected) == most or characters >= CHARACTERS:
            yield Chunk(taken, rejected, place)
            taken, rejected, characters, place = [], [], 0, None
    if place is not None:
        yield Chunk(taken, rejected, place)
