"""A report of plans as lines for a reader, and as JSON."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secure_infer.ckks import disclosure
from secure_infer.ckks.allocation import Allocation, cheapest_for
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.planner import Rejected
from secure_infer_client.planning.costed import Batch, Cohort, Costed, Single, batch_from, cohort, records_of

WIDTH = 120
MOST_REASONS = 12


@dataclass(frozen=True)
class Report:
    """facts: of the model and of what was asked, as JSON can hold them. single, batches: the quickest (a record) first.
    records: how many records to reckon with besides a single one, or None."""

    facts: dict[str, Any]
    privacy: Privacy
    link: Link
    single: Sequence[Single]
    batches: Sequence[Batch] = ()
    rejected: Sequence[Rejected] = ()
    records: int | None = None

    @property
    def ways(self) -> list[Costed[Plan]]:
        return [*self.single, *self.batches]

    @property
    def chosen(self) -> Costed[Plan] | None:
        """What a single record is asked with."""
        return next(iter(self.ways), None)

    @property
    def cohorts(self) -> list[Cohort]:
        """What `records` take with each plan, the quickest first."""
        found = (cohort(way, self.records or 1, self.link) for way in self.ways)
        return sorted(found, key=lambda one: one.cost.total)

    @property
    def allocation(self) -> Allocation[Single, Batch]:
        """How `records` are divided for the least time."""
        return cheapest_for(self.records or 1, next(iter(self.single), None), self.batches, self.link)

    @property
    def batch_from(self) -> int | None:
        return batch_from(self.single, self.batches, self.link)


# Lines.


def lines(report: Report) -> list[str]:
    """Consequences for privacy, the plans, what many records take, what was rejected."""
    found = []
    for kind, privacy in _tried(report):
        found += _wrapped(f"  {kind:<12}", disclosure.of_kind(kind, privacy))
    if report.ways:
        found += ["", *_ways(report)]
    if report.records is not None and report.ways:
        found += ["", *_cohorts(report)]
    if report.rejected:
        found += ["", "rejected:", *_rejected(report.rejected)]
    return found


def _tried(report: Report) -> list[tuple[str, Privacy]]:
    """Kinds and levels of privacy; a server whose operator allows less than both-private offers both."""
    found = [(way.kind, way.plan.privacy) for way in report.ways]
    return list(dict.fromkeys(found + [(one.kind, report.privacy) for one in report.rejected]))


def _ways(report: Report) -> list[str]:
    ring = _ring_width(report)
    found = [
        f"  {'kind':<12}{'ring':<{ring}}{'cts/products':>12}{'server ms':>10}{'client ms':>10}{'network ms':>11}"
        f"{'total ms':>9}{'bytes up':>11}{'bytes down':>11}{'key bytes':>11}{'smudging':>9}{'error':>9}"
    ]
    for index, way in enumerate(report.ways):
        mark = ">" if index == 0 else "*" if way.offered else " "
        plan, cost = way.plan, way.cost
        found.append(
            f"{mark} {way.kind:<12}{plan.parameters!s:<{ring}}{f'{plan.ciphertexts}/{plan.products}':>12}"
            f"{1e3 * cost.server:>10.1f}{1e3 * cost.client:>10.1f}{1e3 * cost.network:>11.1f}{1e3 * cost.total:>9.1f}"
            f"{cost.bytes_up:>11,}{cost.bytes_down:>11,}{plan.key_bytes:>11,}"
            f"{plan.smudging_bits or 'none':>9}{plan.error_bound:>9.1e}"
        )
    return [*found, *_choice(report)]


def _choice(report: Report) -> list[str]:
    """Why the first is chosen, and what stars and batches mean."""
    first, *others_tried = report.ways
    quickest = {way.kind: way for way in reversed(report.single) if way.kind != first.kind}
    others = "".join(f"; the quickest by {kind} takes {1e3 * way.cost.total:.1f} ms" for kind, way in quickest.items())
    found = [f"> chosen: {first.kind}, {first.plan.parameters}: the least time a query on this link{others}"]
    if any(way.offered for way in others_tried):
        found.append("* offered to clients too: no other needs less of both the server's time and bytes")
    if report.batches:
        found.append("batch: figures of one whole batch, which holds N records; offered if it saves time a record")
    return [*found, "keys travel once, before the first query, and are not counted here"]


def _cohorts(report: Report) -> list[str]:
    ring = _ring_width(report)
    found = [
        f"{report.records:,} records, keys carried first, calls one after another:",
        f"  {'kind':<12}{'ring':<{ring}}{'queries':>9}{'calls':>9}{'server s':>10}{'client s':>10}{'network s':>11}"
        f"{'total s':>10}{'ms a record':>13}{'bytes up':>16}{'bytes down':>16}",
    ]
    for index, one in enumerate(report.cohorts):
        way, cost = one.way, one.cost
        found.append(
            f"{' ' if index else '>'} {way.kind:<12}{way.plan.parameters!s:<{ring}}{one.queries:>9,}{one.calls:>9,}"
            f"{cost.server:>10.2f}{cost.client:>10.2f}{cost.network:>11.2f}{cost.total:>10.2f}"
            f"{1e3 * cost.total / (report.records or 1):>13.2f}{cost.bytes_up:>16,}{cost.bytes_down:>16,}"
        )
    return [*found, _verdict(report)]


def _ring_width(report: Report) -> int:
    return 1 + max(len(str(way.plan.parameters)) for way in report.ways)


def _verdict(report: Report) -> str:
    shares = [f"{s.records:,} by {s.plan.kind}, {s.plan.parameters}" for s in report.allocation.shares]
    pays = "there is no batch plan to compare with"
    if report.batches:
        least = report.batch_from
        pays = "even a full batch takes longer than single queries"
        pays = pays if least is None else f"a batch pays from {least:,} records in it"
    return f"quickest in {report.allocation.seconds:.2f} s: {', then '.join(shares)}; {pays}"


def _rejected(rejected: Sequence[Rejected]) -> list[str]:
    """One entry for reasons that differ in nothing but numbers, the commonest first."""
    groups: dict[tuple[str, str], list[Rejected]] = {}
    for one in rejected:
        groups.setdefault((one.kind, re.sub(r"[0-9][0-9.]*(e[+-]?[0-9]+)?", "#", one.reason)), []).append(one)
    ordered = sorted(groups.values(), key=len, reverse=True)
    found = []
    for group in ordered[:MOST_REASONS]:
        same = len({one.reason for one in group}) == 1
        alike = f" ({len(group)} times{'' if same else ', with other figures'})" if len(group) > 1 else ""
        found += _wrapped(f"  {group[0].kind:<12}", group[0].reason + alike)
    if len(ordered) > MOST_REASONS:
        found.append(f"  and {len(ordered) - MOST_REASONS} further reasons, which --json lists")
    return found


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


# JSON.


def as_json(report: Report) -> dict[str, Any]:
    """Everything the lines say, every rejected candidate by itself."""
    ways = [_way(way) for way in report.ways]
    return {
        **report.facts,
        "link": str(report.link),
        "consequences": [
            {"kind": kind, "privacy": str(privacy), "consequence": disclosure.of_kind(kind, privacy)}
            for kind, privacy in _tried(report)
        ],
        "chosen": None if report.chosen is None else _way(report.chosen),
        "candidates": ways,
        "rejected": [{"kind": r.kind, "parameters": r.parameters, "reason": r.reason} for r in report.rejected],
        "batch": _batch(report) if report.records is not None and ways else None,
    }


def _way(way: Costed[Plan]) -> dict[str, Any]:
    plan = way.plan
    return {
        **plan.as_dict(),
        "kind": way.kind,
        "offered": way.offered,
        "ciphertexts": plan.ciphertexts,
        "products": plan.products,
        "records_per_query": records_of(plan),
        **_milliseconds(way.cost),
        "key_bytes": plan.key_bytes,
        "security_bits": plan.security_bits,
    }


def _milliseconds(cost: Estimate) -> dict[str, Any]:
    return {
        "server_ms": 1e3 * cost.server,
        "client_ms": 1e3 * cost.client,
        "network_ms": 1e3 * cost.network,
        "total_ms": 1e3 * cost.total,
        "bytes_up": cost.bytes_up,
        "bytes_down": cost.bytes_down,
    }


def _batch(report: Report) -> dict[str, Any]:
    cohorts = [
        {
            "kind": one.way.kind,
            "ring": str(one.way.plan.parameters),
            "queries": one.queries,
            "calls": one.calls,
            **_milliseconds(one.cost),
        }
        for one in report.cohorts
    ]
    shares = [
        {
            "kind": share.plan.kind,
            "ring": str(share.plan.parameters),
            "records": share.records,
            "ms": 1e3 * share.cost.total,
        }
        for share in report.allocation.shares
    ]
    return {
        "records": report.records,
        "quickest": shares,
        "batch_pays_from": report.batch_from,
        "candidates": cohorts,
    }
