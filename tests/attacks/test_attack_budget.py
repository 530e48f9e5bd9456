"""Claim: a budget ends the extraction of a model, and asking again in any way shows no fresh flood for free.

Adversary: an ordinary user, who asks d + 1 chosen inputs; one who repeats a request to average its flood out; one who
tries another tenant's request id. Unprotected variant: the same server with its gate open.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from adversary import random_head
from numpy.typing import NDArray

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import BudgetExhausted, RequestIdReused
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc
from secure_infer_client import Client, transport
from secure_infer_client.keys import SecretKey
from secure_infer_client.uploads import CHUNK
from secure_infer_server.app import App
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.authority import Authority, certificate_pem, key_pem, new_authority, new_key
from secure_infer_server.guarded import CallerSettings, GuardedGate, GuardSettings
from secure_infer_server.settings import Settings, Tls
from secure_infer_server.workers.settings import WorkerSettings

FEATURES, OUTPUTS = 16, 8
HEAD = random_head(FEATURES, OUTPUTS, seed=21)
PROBES = np.vstack([np.zeros(FEATURES), np.eye(FEATURES)])


@dataclass(frozen=True)
class Tenant:
    """A certificate of its own."""

    root_certificates: bytes
    private_key: bytes
    certificate_chain: bytes

    @classmethod
    def signed(cls, ca: Authority, name: str) -> Tenant:
        key = new_key()
        certificate = ca.sign("client", name, ["localhost"], key.public_key(), 1)
        return cls(certificate_pem(ca.certificate), key_pem(key), certificate_pem(certificate))


@dataclass(frozen=True)
class Running:
    """A server under TLS, with the certificates of two tenants."""

    address: str
    tenants: tuple[Tenant, Tenant]

    def client(self, tenant: int = 0) -> Client:
        return Client(self.address, model="m", **vars(self.tenants[tenant]))


@contextmanager
def running(path: Path, allowance: Allowance | None) -> Iterator[Running]:
    """allowance None: the gate is open."""
    (path / "models").mkdir()
    HEAD.save(path / "models" / "m.head")
    ca, key = new_authority("a CA", 2), new_key()
    server = ca.sign("server", "127.0.0.1", ["127.0.0.1"], key.public_key(), 1)
    for name, data in (("ca", certificate_pem(ca.certificate)), ("s", certificate_pem(server)), ("key", key_pem(key))):
        (path / name).write_bytes(data)
    tls = Tls(path / "s", path / "key", path / "ca")
    gate = None
    if allowance is not None:
        budgets = BudgetSettings(path / "budgets", allowance, block=4)
        gate = GuardedGate(
            GuardSettings(CallerSettings(), budgets, AuditSettings(path / "log", key=path / "audit.key"))
        )
    app = App(Settings(path / "models", "127.0.0.1", 0, tls, blinds_per_key=4, workers=WorkerSettings(count=0)), gate)
    try:
        yield Running(app.start(), (Tenant.signed(ca, "ward-7"), Tenant.signed(ca, "ward-8")))
    finally:
        app.stop()
        if gate is not None:
            gate.close()


class Asking:
    """A tenant's handmade requests, to be sent as often as it likes."""

    def __init__(self, server: Running, tenant: int) -> None:
        with server.client(tenant) as client:
            self._spec, plan = client.spec, client.plan
        assert isinstance(plan, QueryPlan)
        self.plan = plan
        self._key, self._address = SecretKey(plan.parameters), server.address
        found = server.tenants[tenant]
        self._channel = grpc.secure_channel(
            server.address,
            grpc.ssl_channel_credentials(found.root_certificates, found.private_key, found.certificate_chain),
        )
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        data = self._key.upload(plan)
        self._digest = data.digest
        header = keys_pb2.KeyHeader(
            model="m", plan_digest=bytes.fromhex(plan.digest), key_digest=data.digest, size=len(data.data)
        )
        chunks = [data.data[start : start + CHUNK] for start in range(0, len(data.data), CHUNK)]
        messages = [keys_pb2.UploadKeysRequest(header=None if i else header, chunk=c) for i, c in enumerate(chunks)]
        keys_pb2_grpc.KeyServiceStub(self._channel).UploadKeys(iter(messages), timeout=30)

    def request(self, x: Sequence[float], request_id: bytes) -> inference_pb2.InferRequest:
        ciphertexts = [self._key.encrypt(polynomial) for polynomial in pack_input(self.plan, np.asarray(x))]
        return inference_pb2.InferRequest(
            model="m",
            model_digest=bytes.fromhex(self._spec.digest),
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=self._digest,
            request_id=request_id,
            queries=[inference_pb2.Query(ciphertexts=ciphertexts)],
        )

    def send(self, request: inference_pb2.InferRequest) -> bytes:
        return bytes(
            transport.call(self._address, 30, lambda: self._stub.Infer(request, timeout=30)).SerializeToString()
        )

    def logits(self, answer: bytes) -> NDArray[np.float64]:
        (found,) = inference_pb2.InferResponse.FromString(answer).answers.answers
        return read_answer(self.plan, self._key.rows(self.plan), found.products)

    def close(self) -> None:
        self._channel.close()


def stolen(x: NDArray[np.float64], logits: NDArray[np.float64]) -> float:
    """Relative error of the weights that least squares finds."""
    linear = HEAD.as_linear()
    assert linear is not None
    found = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), logits, rcond=None)[0].T[:, :-1]
    return float(np.linalg.norm(found - linear.weight) / np.linalg.norm(linear.weight))


def one_by_one(client: Client) -> list[NDArray[np.float64]]:
    """Answers to the probes, until the server has enough."""
    found: list[NDArray[np.float64]] = []
    try:
        for row in PROBES:
            found.append(client.predict(row[None])[0])
    except BudgetExhausted:
        pass
    return found


def test_a_budget_stops_extraction(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    with running(tmp_path / "open", None) as server, server.client() as client:
        assert stolen(PROBES, np.array(one_by_one(client))) < 0.01
    (tmp_path / "closed").mkdir()
    with running(tmp_path / "closed", Allowance(total=FEATURES // 2)) as server:
        with server.client() as client:
            found = one_by_one(client)
        assert len(found) == FEATURES // 2
        assert stolen(PROBES[: len(found)], np.array(found)) > 0.5
        # A new session, and a new key, are the same identity; the other tenant has its own allowance.
        with server.client() as client, pytest.raises(BudgetExhausted):
            client.predict(PROBES[:1])
        with server.client() as client, pytest.raises(BudgetExhausted):
            client.predict(np.zeros((FEATURES, FEATURES)))  # all at once
        with server.client(1) as client:
            assert client.predict(PROBES[:1]).shape == (1, OUTPUTS)
    log = [json.loads(line) for line in (tmp_path / "closed" / "log" / "audit-00000001.jsonl").read_text().splitlines()]
    refused = [entry for entry in log if entry.get("outcome") == "BUDGET_EXHAUSTED"]
    assert {entry["who"] for entry in refused} == {"cn:ward-7"}


def test_averaging_needs_answers_that_are_counted(tmp_path: Path) -> None:
    """The same request under the same id: fresh floods from an open gate, which average out, one answer from ours."""
    repeats = 24
    noise = {}
    for name, allowance in (("open", None), ("closed", Allowance(total=repeats))):
        (tmp_path / name).mkdir()
        with running(tmp_path / name, allowance) as server:
            asking = Asking(server, 0)
            request = asking.request(PROBES[3], secrets.token_bytes(16))
            answers = [asking.send(request) for _ in range(repeats)]
            logits = np.array([asking.logits(answer) for answer in answers])
            noise[name] = np.ptp(logits, axis=0).max() / asking.plan.flood
            assert len(set(answers)) == (1 if allowance else repeats)
            if allowance is not None:
                # Only the first was charged. Under new ids the rest can be had, and then no more.
                for _ in range(repeats - 1):
                    asking.send(asking.request(PROBES[3], secrets.token_bytes(16)))
                with pytest.raises(BudgetExhausted):
                    asking.send(asking.request(PROBES[3], secrets.token_bytes(16)))
                assert asking.send(request) == answers[0]
            asking.close()
    assert noise["open"] > 1
    assert noise["closed"] == 0


def test_an_id_belongs_to_one_tenant_and_one_request(tmp_path: Path) -> None:
    with running(tmp_path, Allowance(total=4)) as server:
        mine, other = Asking(server, 0), Asking(server, 1)
        request_id = secrets.token_bytes(16)
        request = mine.request(PROBES[1], request_id)
        answer = mine.send(request)
        with pytest.raises(RequestIdReused):
            mine.send(mine.request(PROBES[2], request_id))
        with pytest.raises(RequestIdReused):
            mine.send(mine.request(PROBES[1], request_id))  # the same input, encrypted anew, is another request
        # The other tenant's id is another request. What it replays word for word is evaluated for it, or its key not found.
        assert other.send(other.request(PROBES[2], request_id)) != answer
        replayed = mine.request(PROBES[1], secrets.token_bytes(16))
        assert other.send(replayed) != mine.send(replayed)
        assert mine.send(request) == answer
        mine.close()
        other.close()
