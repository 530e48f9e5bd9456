"""A head with the plans that its policy allows: chosen when it is loaded, each compiled when the first client uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from secure_infer.ckks import planner
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.batch.planner import Program
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.costs import UnitCosts
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.queries import QueryEvaluator
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import Head, ModelSpec
from secure_infer.heads.split import contract_after, private_network, public_layers
from secure_infer_server.settings import DEFAULT_BATCH_BYTES, Policy

USUAL_LINK = "lan"
"""What orders the plans offered; a client chooses by its own link."""


@dataclass
class Offered:
    """A plan that clients may use, and its evaluator once it is compiled. seconds: of the server, estimated."""

    plan: QueryPlan
    seconds: float
    _compile: Callable[[], QueryEvaluator]
    _evaluator: QueryEvaluator | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def compiled(self) -> bool:
        """Whether `evaluator` is there at once."""
        return self._evaluator is not None

    @property
    def evaluator(self) -> QueryEvaluator:
        with self._lock:
            if self._evaluator is None:
                self._evaluator = self._compile()
            return self._evaluator

    def __reduce__(self) -> tuple[Any, ...]:
        return Offered, (self.plan, self.seconds, self._compile)  # another process compiles it for itself


@dataclass(frozen=True)
class OfferedBatch:
    """A batch plan that clients may use, with its program. seconds: of the server for one batch, estimated."""

    plan: BatchPlan
    seconds: float
    program: Program


Offer = TypeVar("Offer", Offered, OfferedBatch)


@dataclass(frozen=True)
class ServedModel:
    """A head with its offers by plan digest (bytes), the operator's level first, the quickest of a level first.

    batches: plans for many records, as `offered`.
    """

    spec: ModelSpec
    head: Head
    policy: Policy
    offered: dict[bytes, Offered]
    no_plan_reason: str
    batches: Mapping[bytes, OfferedBatch] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def digest(self) -> bytes:
        return bytes.fromhex(self.spec.digest)

    @property
    def obstacle(self) -> str:
        """Why it cannot be evaluated under encryption; empty where it can."""
        return "" if self.offered or self.batches else self.no_plan_reason

    @property
    def message_bytes(self) -> int:
        """Of the largest message that any of its plans needs."""
        plans = [offered.plan for offered in self.offered.values()]
        calls = [max(plan.query_bytes, plan.answer_bytes) * plan.queries_per_call for plan in plans]
        return max([0, *calls, *(batch.plan.ciphertext_bytes for batch in self.batches.values())])

    @property
    def plans(self) -> list[Plan]:
        return [*(offered.plan for offered in self.offered.values()), *(batch.plan for batch in self.batches.values())]

    def offers(self, privacy: Privacy) -> list[Offered]:
        """Offers of that level, or of the next one that has any: a client chooses by time, never between levels."""
        enough = [o for o in self.offered.values() if o.plan.privacy.rank >= privacy.rank]
        least = min((o.plan.privacy.rank for o in enough), default=0)
        return [o for o in enough if o.plan.privacy.rank == least]

    def batch_offers(self, privacy: Privacy) -> list[OfferedBatch]:
        """Batch plans of the level that `offers` is of, or of at least that level where it is empty."""
        single = [o.plan.privacy.rank for o in self.offers(privacy)]
        able = [b for b in self.batches.values() if b.plan.privacy.rank >= privacy.rank]
        least = min(single or [b.plan.privacy.rank for b in able], default=0)
        return [b for b in able if b.plan.privacy.rank == least]

    def plan(self, digest: bytes) -> Plan:
        """The plan of that digest, of either kind; raises PlanRefused."""
        return self.batch(digest).plan if digest in self.batches else self.single(digest).plan

    def single(self, digest: bytes) -> Offered:
        """The offer of a plan for single queries; raises PlanRefused."""
        return self._offered(self.offered, digest, "single queries")

    def batch(self, digest: bytes) -> OfferedBatch:
        """The offer of a batch plan; raises PlanRefused."""
        return self._offered(self.batches, digest, "batches")

    def _offered(self, offers: Mapping[bytes, Offer], digest: bytes, kind: str) -> Offer:
        if digest not in offers:
            raise PlanRefused(
                f"model {self.spec.name!r}: plan {digest.hex()[:12]}… is not offered for {kind} "
                f"(the operator's level is {self.policy.privacy}); ask for the model's plans again"
            )
        return offers[digest]

    @classmethod
    def compile(
        cls,
        name: str,
        head: Head,
        policy: Policy,
        batch_memory: int = DEFAULT_BATCH_BYTES,
        costs: UnitCosts | None = None,
    ) -> ServedModel:
        """The model with its plans; batch plans are those whose evaluation takes at most `batch_memory` bytes. costs: this
        machine's, unless they are given."""
        costs = costs or unit_costs()
        spec, offered, reason = ModelSpec.of(name, head), {}, ""
        batches: dict[bytes, OfferedBatch] = {}
        link = Link.parse(USUAL_LINK)
        try:
            network = private_network(head)
            contract = contract_after(public_layers(head), head.contract)
            for level in Privacy:
                if level.rank < policy.privacy.rank:
                    continue
                wanted = planner.demand(network, contract, privacy=level, error=policy.error, smudging=policy.smudging)
                tried = planner.explore(network, contract, wanted, costs, link)
                if not tried.candidates:
                    reason = planner.refusal(tried.rejected, network, wanted).message
                for candidate in planner.offers(tried.candidates):
                    digest = bytes.fromhex(candidate.plan.digest)
                    offered[digest] = Offered(candidate.plan, candidate.cost.server, candidate.compile)
                if policy.least_batch_smudging and batch_memory:
                    wanted = replace(wanted, smudging=policy.least_batch_smudging)
                    many = planner.batch_candidates(network, contract, wanted, costs, link)
                    for batch in planner.batch_offers(many.candidates):
                        found = OfferedBatch(batch.plan, batch.cost.server, batch.program)
                        if batch.program.memory <= batch_memory:
                            batches[bytes.fromhex(batch.plan.digest)] = found
        except UnsupportedHead as problem:
            reason = problem.message
        return cls(spec, head, policy, offered, reason, batches)
