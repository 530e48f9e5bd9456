"""Claim: a hostile server learns at most one refusal a key from this client, and two in all.

Adversary: the server. It answers whatever it likes; an answer outside the declared range is refused, and where the
client shows that (a retry, the next row, a pause) each refusal is an oracle on the secret key: an answer that is in
range exactly when s_i is not +1 tells s_i.
Unprotected variant: a client that checks the same range with the same arithmetic, and tries again with the same key.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from adversary import Case, dataplane, offered, random_head

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import pack
from secure_infer.errors import AnswerRefused
from secure_infer.heads import ModelSpec
from secure_infer.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    plans_pb2,
)
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer_client import Client

HEAD = random_head(16, 2, seed=9)


def probe(plan: CoefficientPlan, index: int, sign: int) -> bytes:
    """An answer that is out of range exactly when coefficient `index` of the secret is `sign`.

    Answer 0 reads c0 + (c1·s)_p. With c1 = ±A X^(p-index) that is c0 ± A s_index; c0 lies A/2 below the limit.
    """
    position, modulus = plan.position(0), plan.answer_modulus
    scale = modulus / plan.first_prime * plan.answer_unit
    limit = int(plan.answer_limit * scale)
    amplitude = int(0.04 * plan.answer_range * scale)
    values = np.zeros(plan.padded_answers + plan.parameters.degree, np.uint64)
    values[0] = limit - amplitude // 2
    # X^(p-index) with a negative exponent is -X^(N+p-index).
    turned = sign if index <= position else -sign
    values[plan.padded_answers + (position - index) % plan.parameters.degree] = turned * amplitude % modulus
    return pack(values, plan.answer_width)


@pytest.mark.parametrize("privacy", list(Privacy))
def test_a_client_that_tries_again_loses_its_secret_key(privacy: Privacy) -> None:
    case = Case.of(HEAD, privacy)
    rows, requests = case.key.rows(case.plan), 0

    def refused(answer: bytes) -> bool:
        nonlocal requests
        requests += 1
        try:
            read_answer(case.plan, rows, [answer])
        except AnswerRefused:
            return True
        return False

    found = np.zeros(case.plan.parameters.degree, np.int8)
    for i in range(len(found)):
        if refused(probe(case.plan, i, +1)):
            found[i] = 1
        elif refused(probe(case.plan, i, -1)):
            found[i] = -1
    assert np.array_equal(found, case.secret)
    assert requests < 2 * len(found)


class Hostile(
    models_pb2_grpc.ModelServiceServicer, keys_pb2_grpc.KeyServiceServicer, inference_pb2_grpc.InferenceServiceServicer
):
    """Serves a genuine model and plan, takes keys, and answers every query with what `forge` makes of it."""

    def __init__(self, spec: ModelSpec, plan: CoefficientPlan, forge: Callable[[Any, int], Any]) -> None:
        self._spec, self._plan, self._forge = spec, plan, forge
        self.calls: dict[bytes, int] = defaultdict(int)
        """Requests by the key they would be answered under."""
        self.keys: list[bytes] = []
        self._lock = threading.Lock()

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return models_pb2.GetModelResponse(
            model=wire_models.to_proto(self._spec),
            offers=[plans_pb2.Offer(plan=wire_plans.to_proto(self._plan))],
            unit_costs=unit_costs().to_json(),
        )

    def UploadKeys(self, request: Any, context: Any) -> Any:  # noqa: N802
        digest = hashlib.sha256(b"".join(message.chunk for message in request)).digest()
        self.keys.append(digest)
        return keys_pb2.UploadKeysResponse(key_digest=digest)

    def Infer(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            call = self.calls[request.key_digest]
            self.calls[request.key_digest] += 1
        return self._forge(request, call)


def answered(request: Any, answer: bytes) -> Any:
    """A response that binds `answer` to the request as an honest server does."""
    return inference_pb2.InferResponse(
        request_id=request.request_id,
        model_digest=request.model_digest,
        answers=inference_pb2.Answers(answers=[inference_pb2.Answer(products=[answer]) for _ in request.queries]),
    )


@pytest.fixture
def hostile() -> Iterator[Callable[..., tuple[Hostile, str]]]:
    servers = []

    def start(forge: Callable[[Any, int], Any]) -> tuple[Hostile, str]:
        server = dataplane("m", HEAD)
        servicer = Hostile(server.registry.get("m").spec, offered(server), forge)
        server = grpc.server(ThreadPoolExecutor(2))
        models_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


PLAN = Case.of(HEAD, Privacy.BOTH_PRIVATE).plan


def test_this_client_gives_one_refusal_a_key_and_stops_after_two(hostile: Callable[..., Any]) -> None:
    """The same probes, over a real socket, against a caller who keeps calling whatever happens."""
    servicer, address = hostile(lambda request, call: answered(request, probe(PLAN, call // 2, 1 - 2 * (call % 2))))
    x = np.zeros((1, HEAD.features))
    refused_under: list[bytes] = []
    with Client(address, model="m") as client:
        for _ in range(200):
            before = sum(servicer.calls.values())
            try:
                client.predict(x)
            except AnswerRefused:
                if sum(servicer.calls.values()) == before:
                    break  # it did not even ask
                refused_under.append(servicer.keys[-1])
        # Two refusals, each under a key that was never used again. A key survives a coefficient's two probes with
        # probability 1/3, so that 200 calls without two refusals do not happen (below 1e-40).
        assert len(refused_under) == len(set(refused_under)) == 2
        assert refused_under == servicer.keys == list(servicer.calls)
        # A refusal ends what a key can tell: fewer than 32 coefficients (all of 32 zero: 5e-16), of 2,048.
        assert all(calls <= 64 for calls in servicer.calls.values())
        asked = sum(servicer.calls.values())
        for _ in range(5):
            with pytest.raises(AnswerRefused, match="this client stopped"):
                client.predict(x)
        assert sum(servicer.calls.values()) == asked


def _truncated(request: Any, call: int) -> Any:
    return answered(request, probe(PLAN, 0, 1)[:-1])


def _other_request(request: Any, call: int) -> Any:
    response = answered(request, probe(PLAN, 0, 1))
    response.request_id = bytes(16)
    return response


def _other_model(request: Any, call: int) -> Any:
    response = answered(request, probe(PLAN, 0, 1))
    response.model_digest = bytes(32)
    return response


def _one_too_many(request: Any, call: int) -> Any:
    response = answered(request, probe(PLAN, 0, 1))
    response.answers.answers.add(products=[probe(PLAN, 0, 1)])
    return response


def _one_product_too_many(request: Any, call: int) -> Any:
    response = answered(request, probe(PLAN, 0, 1))
    response.answers.answers[0].products.append(probe(PLAN, 0, 1))
    return response


def _nothing(request: Any, call: int) -> Any:
    return inference_pb2.InferResponse(request_id=request.request_id, model_digest=request.model_digest)


MALFORMED = [_truncated, _other_request, _other_model, _one_too_many, _one_product_too_many, _nothing]


@pytest.mark.parametrize("forge", MALFORMED)
def test_every_malformed_answer_costs_the_key_too(hostile: Callable[..., Any], forge: Callable[..., Any]) -> None:
    """Whatever is wrong with an answer, one key gives one refusal: no second kind of oracle beside the range."""
    servicer, address = hostile(forge)
    with Client(address, model="m") as client:
        for _ in range(4):
            with pytest.raises(AnswerRefused):
                client.predict(np.zeros((1, HEAD.features)))
    assert list(servicer.calls.values()) == [1, 1]
    assert len(set(servicer.keys)) == 2


def test_a_refused_row_ends_its_cohort(hostile: Callable[..., Any]) -> None:
    """Rows beyond the first call of a cohort are not sent when that call is refused."""
    servicer, address = hostile(_truncated)
    rows = np.zeros((3 * PLAN.queries_per_call, HEAD.features))
    with Client(address, model="m") as client, pytest.raises(AnswerRefused):
        client.predict(rows)
    assert list(servicer.calls.values()) == [1]
