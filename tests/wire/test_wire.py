"""Converters are inverse to each other, and refuse what does not fit together."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import planner
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Privacy, QueryPlan
from secure_infer.ckks.slots import SlotPlan
from secure_infer.errors import CATALOGUE, MalformedRequest, PlanRefused, SecureInferError
from secure_infer.heads import Head, ModelSpec
from secure_infer.heads.split import private_network
from secure_infer.v1 import models_pb2, plans_pb2
from secure_infer.wire import models, plans, status
from shared import flat_costs, hidden_head, linear_head

HEADS = {
    "affine": linear_head(384, 21),
    "several ciphertexts": linear_head(5000, 2, norm=None),
    "monomials and slots": hidden_head((6, 5, 2)),
    "slots": hidden_head((300, 4, 2)),
}


def planned(head: Head, privacy: Privacy = Privacy.BOTH_PRIVATE) -> list[QueryPlan]:
    """The quickest plan of each kind that evaluates the head."""
    network = private_network(head)
    wanted = planner.demand(network, head.contract, privacy=privacy)
    found = planner.explore(network, head.contract, wanted, flat_costs(), Link.parse("lan"))
    return list({candidate.kind: candidate.plan for candidate in reversed(found.candidates)}.values())


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize("name", HEADS)
def test_plans_round_trip(name: str, privacy: Privacy) -> None:
    plans_found = planned(HEADS[name], privacy)
    assert len(plans_found) == (2 if "and" in name else 1)
    for plan in plans_found:
        message = plans_pb2.Plan.FromString(plans.to_proto(plan).SerializeToString())
        found = plans.from_proto(message)
        assert (found, type(found), found.digest) == (plan, type(plan), plan.digest)
        found.check_for(HEADS[name].contract, HEADS[name].outputs, privacy)


@pytest.mark.parametrize("plan", planned(HEADS["monomials and slots"]), ids=lambda plan: plan.name)
def test_every_field_of_a_plan_travels(plan: QueryPlan) -> None:
    """A field that the wire forgot would leave the digest another one; one changed on the way, too."""
    message = plans.to_proto(plan)
    for field in (f.name for f in dataclasses.fields(plan) if f.name not in ("parameters", "privacy", "moves")):
        part = message if field in message.DESCRIPTOR.fields_by_name else getattr(message, message.WhichOneof("kind"))
        before = getattr(part, field)
        setattr(part, field, before + 1)
        with pytest.raises(PlanRefused, match="digest"):
            plans.from_proto(message)
        setattr(part, field, before)
    assert plans.from_proto(message) == plan


def test_keys_that_a_plan_asks_for_are_part_of_it() -> None:
    (plan,) = planned(HEADS["slots"])
    assert isinstance(plan, SlotPlan)
    message = plans.to_proto(plan)
    message.slots.moves[0].level += 1
    with pytest.raises(PlanRefused, match="digest"):
        plans.from_proto(message)


def test_plans_of_no_kind_or_another_are_refused() -> None:
    for plan in planned(HEADS["monomials and slots"]):
        message = plans.to_proto(plan)
        message.ClearField(message.WhichOneof("kind"))
        with pytest.raises(PlanRefused, match="update the client"):
            plans.from_proto(message)
        other = message.coefficient if isinstance(plan, SlotPlan) else message.slots
        other.SetInParent()
        with pytest.raises(PlanRefused, match="digest"):
            plans.from_proto(message)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(planned(HEADS["monomials and slots"])), st.data())
def test_hostile_plans_are_refused_by_name(plan: QueryPlan, data: st.DataObject) -> None:
    """Any numbers, with a digest that fits them: from_proto and check_for refuse with one catalogued error, or accept."""
    numbers = st.sampled_from([0, 1, 2, 3, 7, 8, 2**16, 2**31 - 1, 2**32 - 1])
    floats = st.sampled_from([0.0, -1.0, 1e-300, 1e300, math.inf, math.nan, 0.5, 2.0**60])
    kinds = {"int": numbers, "float": floats, "tuple[tuple[int, int], ...]": st.lists(st.tuples(numbers, numbers))}
    names = [f.name for f in dataclasses.fields(plan) if f.type in kinds]
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    types = {f.name: str(f.type) for f in dataclasses.fields(plan)}
    drawn = {name: data.draw(kinds[types[name]], label=name) for name in chosen}
    forged = dataclasses.replace(plan, **{k: tuple(v) if isinstance(v, list) else v for k, v in drawn.items()})
    try:
        found = plans.from_proto(plans.to_proto(forged))
        found.check_for(HEADS["monomials and slots"].contract, 2, Privacy.BOTH_PRIVATE)
    except PlanRefused:
        return
    assert found.query_bytes + found.answer_bytes + found.key_bytes < 1 << 40


def test_damage_on_the_way_is_refused() -> None:
    message = plans.to_proto(planned(HEADS["affine"])[0])
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
    message = plans.to_proto(planned(linear_head(4, 2))[0])
    message.parameters.degree = 1024
    with pytest.raises(PlanRefused, match="ring degree"):
        plans.from_proto(message)
    message.parameters.degree = 2048
    message.parameters.data_primes[:] = [1152921504606830593]
    message.parameters.ClearField("special_prime")
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
