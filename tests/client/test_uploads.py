"""Uploads that break: they go on from what the server holds, and end when a call brings them no further."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from secure_infer.ckks.plan import Plan
from secure_infer.errors import CallFailed, ServerUnavailable
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer_client import uploads
from secure_infer_client.uploads import upload_key
from secure_infer_server.gate import OpenGate
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.service import KeyCalls
from secure_infer_server.keys.servicers import KeyServicer
from secure_infer_server.keys.vault import KeyVault, load_client_keys
from server.keys.material import Sample, sample


class Breaking(KeyServicer):
    """Loses its first `breaks` uploads after some messages."""

    breaks, after = 0, 5

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.offsets: list[int] = []

    def UploadKeys(self, request: Any, context: Any) -> Any:  # noqa: N802
        breaking = self.breaks > 0
        self.breaks -= breaking

        def received() -> Iterator[Any]:
            for number, message in enumerate(request):
                if number == 0:
                    self.offsets.append(message.header.offset)
                if breaking and number == self.after:
                    raise grpc.RpcError
                yield message

        return super().UploadKeys(received(), context)


@pytest.fixture(scope="module")
def key() -> Sample:
    return sample()


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend(KeyLimits())


@pytest.fixture
def serving(key: Sample, backend: MemoryBackend) -> Iterator[tuple[Breaking, str]]:
    vault = KeyVault(backend, load_client_keys, 256 << 20)

    def plan_of(model: str, digest: bytes) -> Plan:
        return key.plan

    servicer = Breaking(KeyCalls(vault, plan_of, lambda *_: None), OpenGate())
    server = grpc.server(ThreadPoolExecutor(4))
    keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer, address
    server.stop(None).wait()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 100_000)


def send(key: Sample, address: str) -> int:
    header = keys_pb2.KeyHeader(
        model="model",
        plan_digest=key.plan_digest,
        key_digest=hashlib.sha256(key.data).digest(),
        size=len(key.data),
    )
    with grpc.insecure_channel(address) as channel:
        return upload_key(
            keys_pb2_grpc.KeyServiceStub(channel), header, key.data, address, 10
        )


def test_a_broken_upload_goes_on(
    key: Sample, serving: tuple[Breaking, str], backend: MemoryBackend
) -> None:
    servicer, address = serving
    servicer.breaks, servicer.after = 3, 7
    assert send(key, address) > len(key.data)
    assert len(servicer.offsets) == 4
    assert (
        0
        == servicer.offsets[0]
        < servicer.offsets[1]
        < servicer.offsets[2]
        < servicer.offsets[3]
    )
    assert backend.usage().keys == 1


def test_an_upload_that_gets_no_further_ends(
    key: Sample, serving: tuple[Breaking, str]
) -> None:
    servicer, address = serving
    servicer.breaks, servicer.after = 100, 1  # less than a polynomial at a time
    with pytest.raises(CallFailed):
        send(key, address)
    assert servicer.offsets == [0]


def test_an_upload_that_the_server_dropped_begins_again(
    key: Sample,
    serving: tuple[Breaking, str],
    backend: MemoryBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servicer, address = serving
    servicer.breaks, servicer.after = 1, 7
    asked = uploads._held

    def then_dropped(*arguments: Any) -> int:
        held = asked(*arguments)
        assert held
        for name in backend.pending(""):
            backend.discard(name)
        return held

    monkeypatch.setattr(uploads, "_held", then_dropped)
    assert send(key, address) > len(key.data)
    assert servicer.offsets[0] == servicer.offsets[2] == 0 < servicer.offsets[1]
    assert backend.usage().keys == 1


def test_a_server_that_is_not_there_is_said(key: Sample) -> None:
    with pytest.raises(ServerUnavailable):
        send(key, "127.0.0.1:1")
