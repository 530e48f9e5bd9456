"""Chooses a plan for a network: every kind of plan and every ring, by what a query takes on this machine and this link.

    coefficient  affine networks, one product
    monomials    hidden layers on few features: affine in the monomials that the client sends
    slots        hidden layers
    batch        many records at once, either kind of network: `batch_candidates`; `cheapest_for` divides records

A candidate is planned by its own kind's rule for range, precision and smudging; here their work and bytes are turned into
seconds and compared. Rejected candidates keep their reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from secure_infer.ckks import slots, work
from secure_infer.ckks.allocation import cheapest_for as cheapest_for
from secure_infer.ckks.batch import planner as batch_planner
from secure_infer.ckks.batch import work as batch_work
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.coefficient import CoefficientPlan, LinearEvaluator
from secure_infer.ckks.coefficient import planner as coefficient_planner
from secure_infer.ckks.coefficient.lift import lifted, lifted_contract, total_degree
from secure_infer.ckks.costs import UnitCosts, Work
from secure_infer.ckks.link import Estimate, Link, estimate
from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING, Privacy, QueryPlan, coarse
from secure_infer.ckks.queries import QueryEvaluator
from secure_infer.ckks.slots.layouts import Layout, promising, unfit
from secure_infer.ckks.slots.planner import DEGREES, Demand, Planner
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Bounds, Network

MAX_RANGE = 1e9
RANGE_SHARE = 2.0**-16
"""Where no error is asked for, hidden layers may err by this part of their range, rounded up to two significant bits, if
that is more than the default."""


@dataclass(frozen=True)
class Candidate:
    """One way to evaluate a network: a plan, what a query takes, and how to compile it."""

    kind: str
    plan: QueryPlan
    cost: Estimate
    compile: Callable[[], QueryEvaluator]


@dataclass(frozen=True)
class BatchCandidate:
    """One way to evaluate many records: a batch plan, what a batch takes (full or not), and the program for it."""

    plan: BatchPlan
    cost: Estimate
    program: batch_planner.Program

    kind = "batch"


@dataclass(frozen=True)
class Rejected:
    """One that was tried and cannot be."""

    kind: str
    parameters: str
    reason: str


@dataclass(frozen=True)
class Exploration:
    """Everything that was tried; candidates with the quickest first."""

    candidates: list[Candidate]
    rejected: list[Rejected]


@dataclass(frozen=True)
class BatchExploration:
    """Every ring that was tried; candidates with the quickest a record first."""

    candidates: list[BatchCandidate]
    rejected: list[Rejected]


def largest_output(network: Network, contract: InputContract) -> float:
    """R: the largest |logit| on any input that keeps the contract."""
    return float(Bounds(network, contract).outputs.max())


def demand(
    network: Network,
    contract: InputContract,
    *,
    privacy: Privacy = Privacy.BOTH_PRIVATE,
    error: float | None = None,
    smudging: int | None = None,
) -> Demand:
    """What is asked of a plan, defaults filled in: the error grows with the range of hidden layers."""
    if error is None:
        error = DEFAULT_ERROR
        if network.hidden:
            largest = largest_output(network, contract)
            if largest > MAX_RANGE:
                raise UnsupportedHead(
                    f"logits up to {largest:.1e}: no precision is of use there; scale the features, or train with stronger "
                    "weight decay"
                )
            # Coarse: the flood follows from it, and is published.
            error = max(error, RANGE_SHARE * coarse(largest, 2))
    return Demand(privacy, error, DEFAULT_SMUDGING if smudging is None else smudging)


def explore(network: Network, contract: InputContract, wanted: Demand, costs: UnitCosts, link: Link) -> Exploration:
    """All plans for single queries. contract: of the rows that are encrypted, `network`'s input."""
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    kinds = [_monomials, _slots] if network.hidden else [_coefficient]
    for kind in kinds:
        found = kind(network, contract, wanted, costs, link)
        candidates += found.candidates
        rejected += found.rejected
    return Exploration(sorted(candidates, key=lambda candidate: candidate.cost.total), rejected)


def batch_candidates(
    network: Network, contract: InputContract, wanted: Demand, costs: UnitCosts, link: Link
) -> BatchExploration:
    """Batch plans. They hide the model from key holders only who made all their keys honestly; see `batch.plan`."""
    found = BatchExploration([], [])
    for tried in batch_planner.plan_batch(
        network, contract, privacy=wanted.privacy, error=wanted.error, smudging=wanted.smudging
    ):
        if tried.program is None:
            found.rejected.append(Rejected("batch", tried.parameters, tried.reason))
            continue
        plan = tried.program.plan
        server, client = batch_work.of_server(tried.program), work.of_client(plan)
        cost = estimate(server, client, plan.query_bytes, plan.answer_bytes, link, costs)
        found.candidates.append(BatchCandidate(plan, cost, tried.program))
    found.candidates.sort(key=lambda candidate: candidate.cost.total / candidate.plan.records)
    return found


LARGER_BATCH_GAIN = 0.05
"""A larger batch is offered beside a smaller one when it saves at least this part of a record's time."""


def batch_offers(candidates: Sequence[BatchCandidate]) -> list[BatchCandidate]:
    """The batch plans worth offering: the smallest batch, and larger ones that save time a record."""
    kept: list[BatchCandidate] = []
    for candidate in sorted(candidates, key=lambda c: c.plan.records):
        seconds = candidate.cost.total / candidate.plan.records
        if not kept or seconds <= (1 - LARGER_BATCH_GAIN) * kept[-1].cost.total / kept[-1].plan.records:
            kept.append(candidate)
    return kept


def offers(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other beats in both the server's time and bytes, in their order."""
    return undominated(candidates, lambda candidate: _burden(candidate.cost))


Item = TypeVar("Item")


def undominated(items: Sequence[Item], burden: Callable[[Item], tuple[float, int]]) -> list[Item]:
    """The items that no other equals or beats in both parts of its burden, in their order; the first of equals."""
    least, kept = math.inf, set()
    for index in sorted(range(len(items)), key=lambda index: burden(items[index])):
        size = burden(items[index])[1]
        if size < least:
            least = size
            kept.add(index)
    return [item for index, item in enumerate(items) if index in kept]


def _burden(cost: Estimate) -> tuple[float, int]:
    return cost.server, cost.bytes_up + cost.bytes_down


def refusal(rejected: Sequence[Rejected], network: Network, wanted: Demand) -> UnsupportedHead:
    """The error for a network that no plan can evaluate."""
    reasons = list(dict.fromkeys(one.reason for one in rejected))
    shape = " -> ".join(map(str, network.widths))
    return UnsupportedHead(
        f"no parameters give {wanted.privacy} with error {wanted.error:g} and {wanted.smudging} smudging bits "
        f"for a head {shape}: {'; '.join(reasons[-3:])}. Allow a larger error or fewer smudging bits, train with stronger "
        "weight decay so that the range shrinks, or make the head narrower or shallower"
    )


def _coefficient(
    network: Network, contract: InputContract, wanted: Demand, costs: UnitCosts, link: Link
) -> Exploration:
    return _affine("coefficient", network.output, contract, wanted, costs, link, lambda plan: plan)


def _monomials(network: Network, contract: InputContract, wanted: Demand, costs: UnitCosts, link: Link) -> Exploration:
    try:
        linear = lifted(network, contract)
    except UnsupportedHead as problem:
        return Exploration([], [Rejected("monomials", "any ring", problem.message)])
    degree = total_degree(network)

    def of_features(plan: CoefficientPlan) -> CoefficientPlan:
        return replace(plan, features=contract.features, lift=degree, lift_norm=contract.largest_norm)

    return _affine("monomials", linear, lifted_contract(contract, degree), wanted, costs, link, of_features)


def _affine(
    kind: str,
    linear: Linear,
    contract: InputContract,
    wanted: Demand,
    costs: UnitCosts,
    link: Link,
    stated: Callable[[CoefficientPlan], CoefficientPlan],
) -> Exploration:
    found = Exploration([], [])
    for tried in coefficient_planner.explore(
        linear, contract, privacy=wanted.privacy, error=wanted.error, smudging=wanted.smudging
    ):
        if tried.plan is None:
            found.rejected.append(Rejected(kind, tried.parameters, tried.reason))
            continue
        plan = stated(tried.plan)
        plan.check()
        cost = _cost(work.of_coefficient_server(plan), plan, costs, link)
        found.candidates.append(Candidate(kind, plan, cost, partial(LinearEvaluator, linear, plan)))
    return found


def _slots(network: Network, contract: InputContract, wanted: Demand, costs: UnitCosts, link: Link) -> Exploration:
    """The smallest ring that has programs, and there those that no other beats in both time and bytes.

    Layouts are priced by their drafts; only what may be offered is compiled, which takes longer.
    """
    planner = Planner(network, contract)
    found = Exploration([], [])

    def reject(words: str, problem: UnsupportedHead | PlanRefused) -> None:
        found.rejected.append(Rejected("slots", words, problem.message))

    for degree in DEGREES:
        drafts = []
        for layout in promising(network, degree):
            try:
                draft = planner.draft(layout, wanted)
            except (UnsupportedHead, PlanRefused) as problem:
                reject(_words(layout), problem)
            else:
                drafts.append((_cost(work.of_slots_server(draft), draft.plan, costs, link), layout))
        for _, layout in undominated(drafts, lambda drafted: _burden(drafted[0])):
            try:
                program = planner.program(layout, wanted)
            except (UnsupportedHead, PlanRefused) as problem:
                reject(_words(layout), problem)
                continue
            cost = _cost(work.of_slots_server(program), program.plan, costs, link)
            compiled = partial(slots.SlotEvaluator, planner.network, program)
            found.candidates.append(Candidate("slots", program.plan, cost, compiled))
        if found.candidates:
            break
        if reason := unfit(network, degree):
            found.rejected.append(Rejected("slots", f"N={degree}", reason))
    return found


def _words(layout: Layout) -> str:
    return (
        f"N={layout.degree}, {layout.inputs} inputs, {layout.parts} parts ({layout.early} early), "
        f"{layout.shifts} shifts, {layout.babies} babies"
    )


def _cost(server: Work, plan: QueryPlan, costs: UnitCosts, link: Link) -> Estimate:
    return estimate(server, work.of_client(plan), plan.query_bytes, plan.answer_bytes, link, costs)
