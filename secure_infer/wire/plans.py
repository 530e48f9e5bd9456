"""Plans as messages."""

from __future__ import annotations

from typing import Any

from secure_infer.ckks.batch.plan import BatchPlan, Layout
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.slots import SlotPlan
from secure_infer.errors import MalformedRequest, PlanRefused
from secure_infer.v1 import plans_pb2

_PRIVACY = {
    Privacy.INPUT_PRIVATE: plans_pb2.PRIVACY_INPUT_PRIVATE,
    Privacy.BOTH_PRIVATE: plans_pb2.PRIVACY_BOTH_PRIVATE,
}
_SHARED = (
    "features",
    "outputs",
    "input_scale",
    "answer_range",
    "flood",
    "smudging_bits",
    "error_bound",
    "failure_probability",
    "answer_bits",
)
_COEFFICIENT = ("answers_per_product", "weight_scale", "lift", "lift_norm")
_PLACES = {
    Layout.COEFFICIENTS: plans_pb2.BATCH_PLACES_COEFFICIENTS,
    Layout.SLOTS: plans_pb2.BATCH_PLACES_SLOTS,
}
_BATCH = ("level", "unit")
_SLOTS = ("answers_per_product", "inputs", "period", "parts", "shifts", "unit", "products_at")


def _fields(source: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def to_proto(plan: Plan) -> plans_pb2.Plan:
    message = plans_pb2.Plan(
        digest=bytes.fromhex(plan.digest),
        parameters=plans_pb2.Parameters(
            degree=plan.parameters.degree,
            data_primes=plan.parameters.data_primes,
            special_prime=plan.parameters.special_prime,
        ),
        privacy=_PRIVACY[plan.privacy],
        **_fields(plan, _SHARED),
    )
    if isinstance(plan, CoefficientPlan):
        message.coefficient.CopyFrom(plans_pb2.CoefficientLayout(**_fields(plan, _COEFFICIENT)))
    elif isinstance(plan, SlotPlan):
        moves = [plans_pb2.Move(element=element, level=level) for element, level in plan.moves]
        message.slots.CopyFrom(plans_pb2.SlotLayout(moves=moves, **_fields(plan, _SLOTS)))
    elif isinstance(plan, BatchPlan):
        message.batch.CopyFrom(plans_pb2.BatchLayout(places=_PLACES[plan.layout], **_fields(plan, _BATCH)))
    return message


def from_proto(message: plans_pb2.Plan) -> Plan:
    """The plan; raises PlanRefused when its parameters are not in the table, its kind is unknown or the digest is not its
    own, MalformedRequest when its privacy level is unknown."""
    privacy = privacy_from_proto(message.privacy)
    if privacy is None:
        raise PlanRefused("plan: it names no privacy level")
    parameters = Parameters(
        message.parameters.degree,
        tuple(message.parameters.data_primes),
        message.parameters.special_prime if message.parameters.HasField("special_prime") else None,
    )
    shared: dict[str, Any] = {"parameters": parameters, "privacy": privacy, **_fields(message, _SHARED)}
    plan: Plan
    match message.WhichOneof("kind"):
        case "coefficient":
            plan = CoefficientPlan(**shared, **_fields(message.coefficient, _COEFFICIENT))
        case "slots":
            moves = tuple((move.element, move.level) for move in message.slots.moves)
            plan = SlotPlan(**shared, moves=moves, **_fields(message.slots, _SLOTS))
        case "batch":
            known = {number: layout for layout, number in _PLACES.items()}
            layout = known.get(message.batch.places)
            if layout is None:
                raise PlanRefused("batch plan: its layout is one that this version does not know; update the client")
            plan = BatchPlan(**shared, layout=layout, **_fields(message.batch, _BATCH))
        case _:
            raise PlanRefused("plan: of a kind that this version does not know; update the client")
    if plan.digest != message.digest.hex():
        raise PlanRefused("plan: its digest is not its own; client and server read it differently")
    return plan


def privacy_to_proto(privacy: Privacy | None) -> plans_pb2.Privacy.ValueType:
    return plans_pb2.PRIVACY_UNSPECIFIED if privacy is None else _PRIVACY[privacy]


def privacy_from_proto(number: int) -> Privacy | None:
    """The level; None when it is not set. Raises MalformedRequest for a level this version does not know."""
    if number == plans_pb2.PRIVACY_UNSPECIFIED:
        return None
    for level, known in _PRIVACY.items():
        if known == number:
            return level
    raise MalformedRequest(f"privacy: unknown level {number}")
