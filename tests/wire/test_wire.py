"""Converters are inverse to each other, and refuse what does not fit together."""

import pytest

from secure_infer.ckks import planner
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import CATALOGUE, MalformedRequest, PlanRefused, SecureInferError
from secure_infer.heads import ModelSpec
from secure_infer.v1 import models_pb2, plans_pb2
from secure_infer.wire import models, plans, status
from shared import linear_head


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize(("features", "outputs", "norm"), [(384, 21, 1.0), (5000, 2, None)])
def test_plans_round_trip(features: int, outputs: int, norm: float | None, privacy: Privacy) -> None:
    head = linear_head(features, outputs, norm=norm)
    linear = head.as_linear()
    assert linear is not None
    plan = planner.choose(linear, head.contract, privacy=privacy)
    message = plans_pb2.CoefficientPlan.FromString(plans.to_proto(plan).SerializeToString())
    assert plans.from_proto(message) == plan
    message.flood += 0.5
    with pytest.raises(PlanRefused, match="digest"):
        plans.from_proto(message)
    message.privacy = 0
    with pytest.raises(PlanRefused, match="privacy"):
        plans.from_proto(message)
    message.privacy = 77
    with pytest.raises(MalformedRequest):
        plans.from_proto(message)


def test_weak_parameters_are_refused_on_arrival() -> None:
    head = linear_head(4, 2)
    linear = head.as_linear()
    assert linear is not None
    message = plans.to_proto(planner.choose(linear, head.contract))
    message.parameters.degree = 1024
    with pytest.raises(PlanRefused, match="ring degree"):
        plans.from_proto(message)
    message.parameters.degree = 2048
    message.parameters.data_primes[:] = [1152921504606830593]
    with pytest.raises(PlanRefused, match="128-bit"):
        plans.from_proto(message)


def test_models_round_trip() -> None:
    for norm in (1.0, None):
        spec = ModelSpec.of("m", linear_head(30, 1, norm=norm))
        assert models.from_proto(models_pb2.ModelSpec.FromString(models.to_proto(spec).SerializeToString())) == spec
    message = models.to_proto(spec)
    del message.labels[:]
    with pytest.raises(PlanRefused):
        models.from_proto(message)
    message = models.to_proto(spec)
    message.input_bound = -1
    with pytest.raises(PlanRefused):
        models.from_proto(message)


@pytest.mark.parametrize("kind", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_error_arrives_as_itself(kind: type[SecureInferError]) -> None:
    found = status.from_status(status.to_status(kind("what happened", limit=3)))
    assert type(found) is kind
    assert found is not None
    assert (found.message, found.details) == ("what happened", {"limit": "3"})


def test_foreign_statuses_are_not_ours() -> None:
    foreign = status.to_status(MalformedRequest("x"))
    foreign.details[0].value = b""
    assert status.from_status(foreign) is None
