"""What a server says of a model, held to this client's own table: its facts, its plans, and which of them are used."""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.ckks import seal
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.errors import PlanRefused
from secure_infer.heads import ModelSpec
from secure_infer.v1 import models_pb2
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer_client.choice import MAX_OFFERS, Batch, Offer, Offered, Query, in_a_row, usable


@dataclass(frozen=True)
class Description:
    """query: the plan for single queries, where there is one, at what each of many takes. batches: every batch plan."""

    spec: ModelSpec
    offered: Offered
    query: Query | None
    batches: list[Batch]

    @property
    def plans(self) -> list[Plan]:
        """All that are offered."""
        return [offer.plan for offer in self.offered.offers]


def read(response: models_pb2.GetModelResponse, model: str, privacy: Privacy | None, link: Link) -> Description:
    """The response as a description of `model`; raises PlanRefused for anything that this client would not use."""
    spec = wire_models.from_proto(response.model)
    if spec.name != model:
        raise PlanRefused(f"asked for model {model!r}, the server described {spec.name[:64]!r}")
    if len(response.offers) > MAX_OFFERS:
        raise PlanRefused(f"offers: expected at most {MAX_OFFERS}, got {len(response.offers)}")
    offers = []
    for message in response.offers:
        plan = wire_plans.from_proto(message.plan)
        plan.check_for(spec.encrypted, spec.outputs, privacy or Privacy.INPUT_PRIVATE)
        offers.append(Offer(with_own_primes(plan), message.server_seconds))
    offered = Offered(tuple(offers), response.unit_costs, response.no_plan_reason or "the server offers no plan")
    query, batches = usable(offers, link, response.unit_costs) if offers else (None, [])
    return Description(spec, offered, None if query is None else in_a_row(query, response.unit_costs), batches)


def with_own_primes(plan: Plan) -> Plan:
    """`plan`, when its primes are the ones this client's SEAL would choose for their sizes."""
    offered = plan.parameters
    special = None if offered.special_prime is None else offered.special_prime.bit_length()
    own = seal.parameters(offered.degree, tuple(p.bit_length() for p in offered.data_primes), special)
    if own != offered:
        raise PlanRefused(f"plan: the primes offered for {offered} are not SEAL's; they may be chosen to be weak")
    return plan
