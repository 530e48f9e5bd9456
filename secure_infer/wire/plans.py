"""Plans as messages."""

from __future__ import annotations

from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import CoefficientPlan, Privacy
from secure_infer.errors import MalformedRequest, PlanRefused
from secure_infer.v1 import plans_pb2

_PRIVACY = {
    Privacy.INPUT_PRIVATE: plans_pb2.PRIVACY_INPUT_PRIVATE,
    Privacy.BOTH_PRIVATE: plans_pb2.PRIVACY_BOTH_PRIVATE,
}
_SAME = (
    "features",
    "outputs",
    "answers_per_product",
    "input_scale",
    "weight_scale",
    "answer_range",
    "flood",
    "smudging_bits",
    "error_bound",
    "failure_probability",
    "answer_bits",
)


def to_proto(plan: CoefficientPlan) -> plans_pb2.CoefficientPlan:
    return plans_pb2.CoefficientPlan(
        digest=bytes.fromhex(plan.digest),
        parameters=plans_pb2.Parameters(
            degree=plan.parameters.degree,
            data_primes=plan.parameters.data_primes,
            special_prime=plan.parameters.special_prime,
        ),
        privacy=_PRIVACY[plan.privacy],
        **{name: getattr(plan, name) for name in _SAME},
    )


def from_proto(message: plans_pb2.CoefficientPlan) -> CoefficientPlan:
    """The plan; raises PlanRefused when its parameters are not in the table or the digest is not its own,
    MalformedRequest when its privacy level is unknown."""
    privacy = privacy_from_proto(message.privacy)
    if privacy is None:
        raise PlanRefused("plan: it names no privacy level")
    parameters = Parameters(
        message.parameters.degree,
        tuple(message.parameters.data_primes),
        message.parameters.special_prime if message.parameters.HasField("special_prime") else None,
    )
    plan = CoefficientPlan(parameters=parameters, privacy=privacy, **{name: getattr(message, name) for name in _SAME})
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
