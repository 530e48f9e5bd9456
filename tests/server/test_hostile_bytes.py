"""Hostile and broken requests: one clear status each, and the server serves the next request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import seal
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.ckks.residues import pack_residues, residue_bytes
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.ckks.slots import SlotPlan
from secure_infer.errors import SecureInferError
from secure_infer.heads import Head
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer_client import Client, transport
from secure_infer_client.keys import SecretKey
from secure_infer_client.local_server import LocalServer
from secure_infer_client.uploads import CHUNK
from shared import unit_rows


class Raw:
    """A client that sends what it is told, on a key that the server holds."""

    def __init__(self, address: str, model: str = "small") -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.keys = keys_pb2_grpc.KeyServiceStub(self.channel)
        self.inference = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)
        with Client(address, model=model) as client:
            self.spec, self.plan = client.spec, client.plan
        self.key = SecretKey(self.plan.parameters)

    def upload(self, data: bytes, **changes: Any) -> bytes:
        header = {
            "model": self.spec.name,
            "plan_digest": bytes.fromhex(self.plan.digest),
            "key_digest": hashlib.sha256(data).digest(),
            "size": len(data),
        }
        chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)] or [b""]
        first = keys_pb2.KeyHeader(**(header | changes))
        messages = [keys_pb2.UploadKeysRequest(header=None if i else first, chunk=c) for i, c in enumerate(chunks)]
        return self.call(lambda: self.keys.UploadKeys(iter(messages), timeout=10)).key_digest

    def request(self, ciphertexts: list[bytes] | None = None, **changes: Any) -> inference_pb2.InferRequest:
        if ciphertexts is None:
            ciphertexts = [self.key.encrypt(p) for p in pack_input(self.plan, unit_rows(1, self.plan.features)[0])]
        fields = {
            "model": self.spec.name,
            "model_digest": bytes.fromhex(self.spec.digest),
            "plan_digest": bytes.fromhex(self.plan.digest),
            "key_digest": self.key.upload(self.plan).digest if self.plan.key_bytes else b"",
            "request_id": b"1",
            "queries": [inference_pb2.Query(ciphertexts=ciphertexts)],
        }
        return inference_pb2.InferRequest(**(fields | changes))

    def infer(self, request: inference_pb2.InferRequest) -> inference_pb2.InferResponse:
        return self.call(lambda: self.inference.Infer(request, timeout=10))

    def call(self, function: Any) -> Any:
        return transport.call(self.address, 10, function)

    def refused(self, request: inference_pb2.InferRequest) -> str:
        """The reason of the refusal; then the server must still answer."""
        with pytest.raises(SecureInferError) as caught:
            self.infer(request)
        assert self.infer(self.request()).WhichOneof("result") == "answers"
        return caught.value.reason


@pytest.fixture(scope="module")
def raw(server: LocalServer) -> Iterator[Raw]:
    made = Raw(server.address)
    made.upload(made.key.upload(made.plan).data)
    yield made
    made.channel.close()


def test_an_honest_request_is_answered(raw: Raw) -> None:
    response = raw.infer(raw.request())
    assert response.WhichOneof("result") == "answers"
    assert (response.request_id, response.model_digest.hex()) == (b"1", raw.spec.digest)


def test_an_unknown_key_is_data(raw: Raw) -> None:
    response = raw.infer(raw.request(key_digest=b"\0" * 32))
    assert response.WhichOneof("result") == "unknown_key"
    assert response.unknown_key.key_digest == b"\0" * 32


def cases(plan: QueryPlan) -> dict[str, list[bytes]]:
    size = plan.query_bytes // plan.ciphertexts
    return {
        "none": [],
        "empty": [b""],
        "cut": [bytes(size - 1)],
        "long": [bytes(size + 1)],
        "two": [bytes(size)] * 2,
        "residues out of range": [b"\xff" * size],
        "text": [b"a patient with pneumonia"],
        "a SEAL stream": [bytes.fromhex("5ea1100403000000") + bytes(500)],
    }


@pytest.mark.parametrize(
    "name", ["none", "empty", "cut", "long", "two", "residues out of range", "text", "a SEAL stream"]
)
def test_wrong_ciphertexts(raw: Raw, name: str) -> None:
    assert raw.refused(raw.request(cases(raw.plan)[name])) == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "nobody"}, "UNKNOWN_MODEL"),
        ({"model": "x" * 10_000}, "UNKNOWN_MODEL"),
        ({"model_digest": b"x"}, "MODEL_CHANGED"),
        ({"plan_digest": b"x"}, "PLAN_REFUSED"),
        ({"request_id": bytes(65)}, "MALFORMED_REQUEST"),
        ({"queries": []}, "MALFORMED_REQUEST"),
        ({"queries": [inference_pb2.Query()] * 65}, "MALFORMED_REQUEST"),
    ],
)
def test_wrong_fields(raw: Raw, changes: dict, reason: str) -> None:
    assert raw.refused(raw.request(**changes)) == reason


def test_ciphertexts_for_other_parameters(raw: Raw, server: LocalServer) -> None:
    other = Raw(server.address, "wide")
    query = [other.key.encrypt(p) for p in pack_input(other.plan, unit_rows(1, 384)[0])]
    assert raw.refused(raw.request(query)) == "MALFORMED_REQUEST"
    other.channel.close()


def test_an_oversized_message_is_refused(raw: Raw) -> None:
    assert raw.refused(raw.request([bytes(64 << 20)])) == "RESOURCE_EXHAUSTED"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10**6), st.booleans())
def test_mutations_of_a_valid_request(raw: Raw, noise: bytes, position: int, cut: bool) -> None:
    data = bytearray(raw.request().SerializeToString())
    start = position % len(data)
    data[start : start + (len(noise) if not cut else 10**9)] = noise
    send = raw.channel.unary_unary("/secure_infer.v1.InferenceService/Infer")
    try:
        send(bytes(data), timeout=10)
    except grpc.RpcError as error:
        assert error.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.INTERNAL,  # gRPC's own word for bytes that are no message
        )
        assert "id " not in (error.details() or ""), "the server had an unexpected fault"
    assert raw.infer(raw.request()).WhichOneof("result") == "answers"


@pytest.mark.parametrize(
    ("data", "changes", "reason"),
    [
        (b"", {}, "MALFORMED_REQUEST"),
        (b"short", {}, "MALFORMED_REQUEST"),
        (bytes(14400), {"size": 3}, "MALFORMED_REQUEST"),
        (bytes(100), {"size": 1 << 40}, "RESOURCE_EXHAUSTED"),
        (bytes(100), {"model": "nobody"}, "UNKNOWN_MODEL"),
        (bytes(100), {"plan_digest": b""}, "PLAN_REFUSED"),
    ],
)
def test_wrong_keys(raw: Raw, data: bytes, changes: dict, reason: str) -> None:
    with pytest.raises(SecureInferError) as caught:
        raw.upload(data, **changes)
    assert caught.value.reason == reason


def test_a_key_with_another_digest_is_refused(raw: Raw) -> None:
    with pytest.raises(SecureInferError, match="SHA-256"):
        raw.upload(raw.key.upload(raw.plan).data, key_digest=b"\1" * 32)


def test_uploads_are_idempotent_and_start_with_a_header(raw: Raw) -> None:
    own = raw.key.upload(raw.plan)
    assert raw.upload(own.data) == raw.upload(own.data) == own.digest
    for chunks in ([], [keys_pb2.UploadKeysRequest(chunk=b"x")]):
        with pytest.raises(SecureInferError, match="header"):
            raw.call(lambda chunks=chunks: raw.keys.UploadKeys(iter(chunks), timeout=10))


# Keys of a plan with hidden layers: a public key, then switching keys.


@pytest.fixture(scope="module")
def hidden(server: LocalServer) -> Iterator[Raw]:
    made = Raw(server.address, "hidden")
    assert isinstance(made.plan, SlotPlan)
    made.upload(made.key.upload(made.plan).data)
    yield made
    made.channel.close()


def places(plan: QueryPlan) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where a polynomial of the first and the last key begins in the key material, and its primes."""
    degree, level = plan.parameters.degree, plan.relinearisation
    first, last = plan.switching_primes(plan.automorphisms[0][1]), plan.switching_primes(level)
    size = residue_bytes(degree, last) + SEED_BYTES
    return {
        "public": (0, plan.public_primes),
        "rotation": (residue_bytes(degree, plan.public_primes) + SEED_BYTES, first),
        "relinearisation": (plan.key_bytes - size, last),
    }


@pytest.mark.parametrize("damage", ["cut", "long", "no switching keys", "another plan's"])
def test_key_material_of_another_length_is_refused(hidden: Raw, raw: Raw, damage: str) -> None:
    own = hidden.key.upload(hidden.plan).data
    public = residue_bytes(hidden.plan.parameters.degree, hidden.plan.public_primes) + SEED_BYTES
    data = {
        "cut": own[:-1],
        "long": own + b"x",
        "no switching keys": own[:public],
        "another plan's": raw.key.upload(raw.plan).data,
    }[damage]
    with pytest.raises(SecureInferError, match="public key: expected") as caught:
        hidden.upload(data)
    assert caught.value.reason == "MALFORMED_REQUEST"
    assert hidden.infer(hidden.request()).WhichOneof("result") == "answers"


@pytest.mark.parametrize("key", ["public", "rotation", "relinearisation"])
def test_residues_beyond_their_prime_are_refused_in_every_key(hidden: Raw, key: str) -> None:
    at, _ = places(hidden.plan)[key]
    own = hidden.key.upload(hidden.plan).data
    with pytest.raises(SecureInferError, match="not below their prime") as caught:
        hidden.upload(own[:at] + b"\xff" * 16 + own[at + 16 :])
    assert caught.value.reason == "MALFORMED_REQUEST"
    assert hidden.infer(hidden.request()).WhichOneof("result") == "answers"


@pytest.mark.parametrize("form", ["coefficient", "NTT"])
@pytest.mark.parametrize("key", ["public", "rotation", "relinearisation"])
def test_the_secret_polynomial_in_any_keys_place_is_refused(hidden: Raw, key: str, form: str) -> None:
    at, primes = places(hidden.plan)[key]
    secret, parameters = hidden.key.polynomial().astype(np.int64), hidden.plan.parameters
    everywhere = seal.ring(parameters).ntt(secret)
    residues = np.zeros((len(primes), parameters.degree), np.uint64)
    for row, prime in enumerate(primes):
        if prime not in parameters.data_primes or form == "coefficient":
            residues[row] = secret % prime
        else:
            residues[row] = everywhere[parameters.data_primes.index(prime)]
    packed, own = pack_residues(residues, primes), hidden.key.upload(hidden.plan).data
    with pytest.raises(SecureInferError, match="ternary") as caught:
        hidden.upload(own[:at] + packed + own[at + len(packed) :])
    assert caught.value.reason == "SECRET_KEY_RECEIVED"
    assert hidden.infer(hidden.request()).WhichOneof("result") == "answers"


def test_a_hidden_layers_query_without_its_keys_is_data(hidden: Raw) -> None:
    response = hidden.infer(hidden.request(key_digest=b"\0" * 32))
    assert response.WhichOneof("result") == "unknown_key"


@pytest.mark.parametrize("name", ["none", "empty", "cut", "long", "residues out of range", "text"])
def test_wrong_ciphertexts_of_a_hidden_layer(hidden: Raw, name: str) -> None:
    assert hidden.refused(hidden.request(cases(hidden.plan)[name])) == "MALFORMED_REQUEST"


def test_an_input_private_plan_takes_no_key(server: LocalServer) -> None:
    raw = Raw(server.address, "public")
    with pytest.raises(SecureInferError, match="takes none"):
        raw.upload(b"x")
    raw.channel.close()


def test_model_requests(raw: Raw, heads: dict[str, Head]) -> None:
    listed = raw.call(lambda: raw.models.ListModels(models_pb2.ListModelsRequest(), timeout=5))
    assert [m.name for m in listed.models] == sorted(heads)
    with pytest.raises(SecureInferError) as caught:
        raw.call(lambda: raw.models.GetModel(models_pb2.GetModelRequest(model="small", privacy=9), timeout=5))
    assert caught.value.reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("rows", [b"", b"x", np.full(8, np.nan).tobytes(), np.full(8, 9.0).tobytes()])
def test_plaintext_baseline_checks_rows_too(raw: Raw, rows: bytes) -> None:
    request = inference_pb2.EvaluatePlaintextRequest(model="small", rows=rows)
    with pytest.raises(SecureInferError):
        raw.call(lambda: raw.inference.EvaluatePlaintext(request, timeout=5))
