"""What a server offers for a model: its plans, the seconds it states for each, and its unit costs."""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.ckks.plan import Privacy
from secure_infer.heads import ModelSpec
from secure_infer.v1 import models_pb2, models_pb2_grpc
from secure_infer.wire import plans as wire_plans
from secure_infer_client import transport
from secure_infer_client.choice import Offer
from secure_infer_client.client import Client


@dataclass(frozen=True)
class Offered:
    """offers: empty when the model cannot be evaluated under encryption; `reason` then says why. unit_costs: as JSON."""

    spec: ModelSpec
    offers: list[Offer]
    unit_costs: str
    reason: str


def ask(client: Client, target: str, model: str, privacy: Privacy | None, timeout: float) -> Offered:
    """Every plan offered, where a client keeps only the one it chose. Raises what the client raises."""
    spec = client.spec  # holds the model and its plans to the client's own table, primes included
    stub = models_pb2_grpc.ModelServiceStub(client._channel)
    request = models_pb2.GetModelRequest(model=model, privacy=wire_plans.privacy_to_proto(privacy))
    response = transport.call(target, timeout, lambda: stub.GetModel(request, timeout=timeout))
    offers = []
    for message in response.offers:
        plan = wire_plans.from_proto(message.plan)
        plan.check_for(spec.encrypted, spec.outputs, privacy or Privacy.INPUT_PRIVATE)
        offers.append(Offer(plan, message.server_seconds))
    return Offered(spec, offers, response.unit_costs, response.no_plan_reason or "the server offers no plan")
