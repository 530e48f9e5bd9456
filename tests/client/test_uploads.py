"""Uploads that break: they go on from what the server holds, and end when a call brings them no further."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from secure_infer.ckks.plan import Plan
from secure_infer.errors import CallFailed, ServerUnavailable
from secure_infer.v1 import keys_pb2_grpc
from secure_infer_client import uploads
from secure_infer_client.keys import Upload
from secure_infer_client.uploads import upload_key
from secure_infer_server.gate import OpenGate
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.service import KeyCalls
from secure_infer_server.keys.servicer import KeyServicer
from secure_infer_server.keys.vault import KeyVault, load_client_keys
from server.keys.material import Sample, sample
from server.keys.serving import serve_keys


class Breaking(KeyServicer):
    """Loses its first `breaks` uploads after some messages."""

    breaks, after = 0, 5

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.offsets: list[int] = []

    async def upload_keys(self, context: Any) -> bytes:
        breaking = self.breaks > 0
        self.breaks -= breaking
        return await super().upload_keys(_Line(context, self.offsets, self.after if breaking else None))


class _Line:
    """A context whose messages break off after so many."""

    def __init__(self, context: Any, offsets: list[int], after: int | None) -> None:
        self._context, self._offsets, self._after, self._read = context, offsets, after, 0

    async def read(self) -> Any:
        if self._read == self._after:
            raise grpc.RpcError
        message = await self._context.read()
        if self._read == 0:
            self._offsets.append(message.header.offset)
        self._read += 1
        return message


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
    with serve_keys(servicer, OpenGate()) as address:
        yield servicer, address


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 100_000)


def send(key: Sample, address: str) -> int:
    upload = Upload(key.data, hashlib.sha256(key.data).digest())
    with grpc.insecure_channel(address) as channel:
        return upload_key(keys_pb2_grpc.KeyServiceStub(channel), "model", key.plan, upload, address, 10)


def test_a_broken_upload_goes_on(key: Sample, serving: tuple[Breaking, str], backend: MemoryBackend) -> None:
    servicer, address = serving
    servicer.breaks, servicer.after = 3, 7
    assert send(key, address) > len(key.data)
    assert len(servicer.offsets) == 4
    assert 0 == servicer.offsets[0] < servicer.offsets[1] < servicer.offsets[2] < servicer.offsets[3]
    assert backend.usage().keys == 1


def test_an_upload_that_gets_no_further_ends(key: Sample, serving: tuple[Breaking, str]) -> None:
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
