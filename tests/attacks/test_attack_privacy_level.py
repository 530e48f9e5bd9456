"""Claim: less privacy than the operator set for a model cannot be had.

Adversary: the key holder, who asks a both-private server for input-private answers, through the client or with handmade
messages; it even knows the digest of the input-private plan of that model.
Unprotected variant: the same messages to a server whose operator allows the level.
"""

from __future__ import annotations

import numpy as np
import pytest
from adversary import Case, Served, call, dataplane, divide, upload

from secure_infer.ckks.coefficient import pack_input
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import MalformedRequest, PlanRefused, PrivacyRefused
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc, plans_pb2
from secure_infer_client import Client
from secure_infer_server.dataplane import load_query


def test_the_client_is_refused(served: Served) -> None:
    x = np.zeros((1, served.head.features))
    with Client(served.address, model=served.model, privacy="input-private") as client:
        for attempt in (lambda: client.plan, lambda: client.predict(x)):
            with pytest.raises(PrivacyRefused, match="hides less"):
                attempt()
    with Client(served.address, model=served.model, privacy="both-private") as client:
        assert client.predict(x).shape == (1, served.head.outputs)


def test_a_handmade_model_request_is_refused(served: Served) -> None:
    request = models_pb2.GetModelRequest(model=served.model, privacy=plans_pb2.PRIVACY_INPUT_PRIVATE)
    with pytest.raises(PrivacyRefused):
        call(served.address, models_pb2_grpc.ModelServiceStub, "GetModel", request)
    for level in (plans_pb2.PRIVACY_UNSPECIFIED, plans_pb2.PRIVACY_BOTH_PRIVATE):
        request = models_pb2.GetModelRequest(model=served.model, privacy=level)
        offered = call(served.address, models_pb2_grpc.ModelServiceStub, "GetModel", request).offers
        assert {offer.plan.privacy for offer in offered} == {plans_pb2.PRIVACY_BOTH_PRIVATE}
    request = models_pb2.GetModelRequest(model=served.model, privacy=7)
    with pytest.raises(MalformedRequest, match="unknown level"):
        call(served.address, models_pb2_grpc.ModelServiceStub, "GetModel", request)


def test_a_handmade_query_under_the_other_plan_is_refused(served: Served) -> None:
    case = Case.of(served.head, Privacy.INPUT_PRIVATE)
    query = [case.key.encrypt(p) for p in pack_input(case.plan, np.zeros(case.plan.features))]
    digest = bytes.fromhex(case.plan.digest)
    request = inference_pb2.InferRequest(
        model=served.model,
        model_digest=bytes.fromhex(served.head.digest),
        plan_digest=digest,
        request_id=bytes(16),
        queries=[inference_pb2.Query(ciphertexts=query)],
    )
    with pytest.raises(PlanRefused, match="is not offered"):
        call(served.address, inference_pb2_grpc.InferenceServiceStub, "Infer", request)

    # The same bytes where the operator allows the level: one answer, and the model is gone.
    server = dataplane(served.model, served.head, Privacy.INPUT_PRIVATE)
    evaluation = server.begin(server.registry.get(served.model).single(digest), None)
    evaluation.add(query)
    sent = case.c1_of(evaluation.answers[0][0])
    c1 = case.ring.residues(load_query(case.plan, query)[0])[1]
    found = divide(case.ring, case.ring.ntt_residues(sent[None]), c1)
    assert np.array_equal(found[case.weight_positions()], case.weights)


def test_a_query_without_a_key_is_not_answered_unblinded(served: Served) -> None:
    """The both-private plan with an empty, an unknown or another plan's key: no answer, rather than a bare product."""
    case = Case.of(served.head, Privacy.BOTH_PRIVATE)
    query = [case.key.encrypt(p) for p in pack_input(case.plan, np.zeros(case.plan.features))]
    request = inference_pb2.InferRequest(
        model=served.model,
        model_digest=bytes.fromhex(served.head.digest),
        plan_digest=bytes.fromhex(case.plan.digest),
        key_digest=bytes(32),
        queries=[inference_pb2.Query(ciphertexts=query)],
    )
    response = call(served.address, inference_pb2_grpc.InferenceServiceStub, "Infer", request)
    assert response.WhichOneof("result") == "unknown_key"
    request.key_digest = b""
    with pytest.raises(MalformedRequest, match="expected 32 bytes, got 0"):
        call(served.address, inference_pb2_grpc.InferenceServiceStub, "Infer", request)
    with pytest.raises(MalformedRequest, match="public key: expected"):
        upload(served.address, served.model, case.plan, b"")
