"""KeyService over real channels."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from secure_infer.ckks.plan import Plan
from secure_infer.errors import (
    CallFailed,
    InternalFault,
    MalformedRequest,
    PlanRefused,
    ResourceExhausted,
    SecretKeyReceived,
)
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer_client import transport
from secure_infer_server.gate import NOTHING, Ask, OpenGate
from secure_infer_server.keys import service
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.names import KeyName, Usage
from secure_infer_server.keys.screening import Screen
from secure_infer_server.keys.service import KeyCalls
from secure_infer_server.keys.servicer import KeyServicer
from secure_infer_server.keys.vault import KeyVault, load_client_keys
from secure_infer_server.keystore import ClientKeys
from server.keys.material import Sample, sample
from server.keys.serving import serve_keys
from shared import until

CHUNK = 1 << 20


class NamedGate(OpenGate):
    """Takes the caller's word for who it is; notes what was admitted."""

    def __init__(self) -> None:
        self.finished: list[tuple[str, str, str | None, str]] = []

    def admit(self, context: Any, method: str, model: str | None = None, ask: Ask = NOTHING) -> Any:
        caller = dict(context.invocation_metadata()).get("caller", "")
        gate = self

        class Admitted:
            stored = None

            def __init__(self) -> None:
                self.caller = caller

            def finish(self, outcome: str, answer: bytes | None = None, **sizes: int) -> None:
                gate.finished.append((caller, method.rpartition("/")[2], model, outcome))

            def __enter__(self) -> Admitted:
                return self

            def __exit__(self, *_: object) -> None:
                pass

        return Admitted()


class Serving:
    """One KeyService at `address`."""

    def __init__(self, plan: Plan) -> None:
        self.backend, self.gate = MemoryBackend(KeyLimits()), NamedGate()
        self.stored: list[KeyName] = []
        vault = KeyVault(self.backend, load_client_keys, 256 << 20)

        def plan_of(model: str, digest: bytes) -> Plan:
            if digest.hex() != plan.digest:
                raise PlanRefused("no such plan")
            return plan

        def stored(model: str, plan: Plan, name: KeyName, keys: ClientKeys) -> None:
            self.stored.append(name)

        self.calls = KeyCalls(vault, plan_of, stored)
        self.address = ""


@pytest.fixture(scope="module")
def key() -> Sample:
    return sample()


@pytest.fixture
def serving(key: Sample) -> Iterator[Serving]:
    made = Serving(key.plan)
    with serve_keys(KeyServicer(made.calls, made.gate), made.gate) as made.address:
        yield made


class Caller:
    def __init__(self, serving: Serving, name: str, key: Sample) -> None:
        self.address, self.metadata, self.key = serving.address, (("caller", name),), key
        self.stub = keys_pb2_grpc.KeyServiceStub(grpc.insecure_channel(serving.address))

    def call(self, method: str, request: Any, timeout: float = 20) -> Any:
        function = getattr(self.stub, method)
        return transport.call(self.address, timeout, lambda: function(request, timeout=timeout, metadata=self.metadata))

    def messages(self, data: bytes, offset: int = 0, **header: Any) -> Iterator[keys_pb2.UploadKeysRequest]:
        fields = {
            "model": "model",
            "plan_digest": self.key.plan_digest,
            "key_digest": hashlib.sha256(data).digest(),
            "size": len(data),
            "offset": offset,
        }
        first = keys_pb2.KeyHeader(**(fields | header))
        for start in range(offset, len(data), CHUNK) or [offset]:
            chunk = data[start : start + CHUNK]
            yield keys_pb2.UploadKeysRequest(header=first if start == offset else None, chunk=chunk)

    def upload(self, data: bytes, offset: int = 0, **header: Any) -> bytes:
        return self.call("UploadKeys", self.messages(data, offset, **header)).key_digest

    @property
    def reference(self) -> keys_pb2.KeyReference:
        return keys_pb2.KeyReference(plan_digest=self.key.plan_digest, key_digest=self.key.digest)

    def held(self) -> tuple[int, bool]:
        response = self.call("GetUpload", keys_pb2.GetUploadRequest(key=self.reference))
        return response.held, response.complete

    def listed(self) -> list[keys_pb2.HeldKey]:
        return list(self.call("ListKeys", keys_pb2.ListKeysRequest()).keys)


def test_a_key_is_uploaded_listed_and_deleted_by_its_owner(serving: Serving, key: Sample) -> None:
    alice, bob = Caller(serving, "alice", key), Caller(serving, "bob", key)
    assert alice.held() == (0, False)
    assert alice.upload(key.data) == key.digest
    assert alice.upload(key.data) == key.digest  # idempotent
    assert alice.upload(key.data, offset=len(key.data)) == key.digest  # with nothing to send
    assert serving.stored == [KeyName("alice", key.plan_digest, key.digest)]
    assert alice.held() == (len(key.data), True)
    (listed,) = alice.listed()
    assert (listed.key, listed.model, listed.size) == (alice.reference, "model", len(key.data))
    assert abs(listed.created - time.time()) < 60
    assert bob.held() == (0, False)
    assert not bob.listed()
    request = keys_pb2.DeleteKeysRequest(keys=[bob.reference])
    assert bob.call("DeleteKeys", request).deleted == 0
    assert bob.call("DeleteKeys", keys_pb2.DeleteKeysRequest(all=True)).deleted == 0
    assert alice.call("DeleteKeys", request).deleted == 1
    assert not alice.listed()
    assert ("alice", "UploadKeys", "model", "ok") in serving.gate.finished


def test_an_upload_that_broke_goes_on(serving: Serving, key: Sample) -> None:
    alice, ends = Caller(serving, "alice", key), Screen(key.plan).ends
    stop = threading.Event()

    def part() -> Iterator[keys_pb2.UploadKeysRequest]:
        yield from alice.messages(key.data[: ends[2] + 10], size=len(key.data), key_digest=key.digest)
        stop.wait(20)

    call = alice.stub.UploadKeys.future(part(), metadata=alice.metadata)
    until(lambda: serving.backend.usage().uploads)
    time.sleep(0.2)
    call.cancel()
    stop.set()
    until(lambda: alice.held()[0] >= ends[2])
    assert alice.held() == (ends[2], False)
    with pytest.raises(MalformedRequest) as gap:
        alice.upload(key.data, offset=ends[2] + 1)
    assert gap.value.details["held"] == str(ends[2])
    assert alice.upload(key.data, offset=ends[2]) == key.digest


def test_a_stalled_upload_ends_and_what_came_is_kept(
    serving: Serving, key: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "UPLOAD_SECONDS", 1.5)  # what is sent at once comes within it on a slow machine, too
    monkeypatch.setattr(service, "UPLOAD_RATE", 1 << 40)
    alice, ends = Caller(serving, "alice", key), Screen(key.plan).ends
    stop = threading.Event()

    def stalled() -> Iterator[keys_pb2.UploadKeysRequest]:
        yield from alice.messages(key.data[: ends[1]], size=len(key.data), key_digest=key.digest)
        stop.wait(20)

    try:
        with pytest.raises(CallFailed):
            alice.call("UploadKeys", stalled())
    finally:
        stop.set()
    until(lambda: alice.held() == (ends[1], False))


def test_secrets_and_other_wrong_bytes_are_refused_and_not_kept(serving: Serving, key: Sample) -> None:
    alice = Caller(serving, "alice", key)
    with pytest.raises(SecretKeyReceived):
        alice.upload(key.with_secret_in_place_of_public_key())
    with pytest.raises(MalformedRequest, match="bytes for"):
        alice.upload(key.data[:-1])
    with pytest.raises(MalformedRequest, match="bytes announced, got"):
        alice.upload(key.data, size=len(key.data) - 1)
    with pytest.raises(ResourceExhausted, match="at most"):
        alice.upload(b"", size=1 << 40)
    with pytest.raises(MalformedRequest, match="header"):
        alice.call("UploadKeys", iter([keys_pb2.UploadKeysRequest(chunk=b"x")]))
    with pytest.raises(MalformedRequest, match="header"):
        alice.call("UploadKeys", iter([]))
    with pytest.raises(PlanRefused):
        alice.upload(key.data, plan_digest=bytes(32))
    with pytest.raises(MalformedRequest, match="32 bytes"):
        alice.upload(key.data, key_digest=b"short")
    with pytest.raises(MalformedRequest, match="announced SHA-256"):
        alice.upload(key.data, key_digest=bytes(32))
    assert serving.backend.usage() == Usage()
    assert alice.upload(key.data) == key.digest


def test_nobody_in_particular_has_no_list(serving: Serving, key: Sample) -> None:
    nobody = Caller(serving, "", key)
    assert nobody.upload(key.data) == key.digest
    assert nobody.held() == (len(key.data), True)
    for method, request in (
        ("ListKeys", keys_pb2.ListKeysRequest()),
        ("DeleteKeys", keys_pb2.DeleteKeysRequest(all=True)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            getattr(nobody.stub, method)(request, timeout=20)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_deletes_say_what(serving: Serving, key: Sample) -> None:
    alice = Caller(serving, "alice", key)
    reference = keys_pb2.KeyReference(plan_digest=bytes(32), key_digest=bytes(32))
    for request in (
        keys_pb2.DeleteKeysRequest(),
        keys_pb2.DeleteKeysRequest(all=True, keys=[reference]),
        keys_pb2.DeleteKeysRequest(keys=[reference] * (service.MAX_REFERENCES + 1)),
        keys_pb2.DeleteKeysRequest(keys=[keys_pb2.KeyReference(plan_digest=b"x")]),
    ):
        with pytest.raises(MalformedRequest):
            alice.call("DeleteKeys", request)


def test_more_uploads_than_places_are_told_to_ask_again(serving: Serving, key: Sample) -> None:
    alice = Caller(serving, "alice", key)
    for _ in range(service.UPLOADS):
        serving.calls._places.acquire()
    with pytest.raises(ResourceExhausted) as busy:
        alice.upload(key.data)
    assert busy.value.details["again"] == "shortly"
    serving.calls._places.release()
    assert alice.upload(key.data) == key.digest
    assert alice.upload(key.data) == key.digest  # the place came back


def test_faults_are_answered_with_an_id(serving: Serving, key: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.backend, "progress", lambda name: 1 // 0)
    with pytest.raises(InternalFault, match="under id") as fault:
        Caller(serving, "alice", key).held()
    assert "division" not in fault.value.message
