"""The Open Inference Protocol as the server checks it: what is described, what is refused, and what it answers after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import AnswerRefused, InvalidInput, SettingsError
from secure_infer.heads import ReLU
from secure_infer_client import transport
from secure_infer_client.open_inference import OpenInferenceClient, Query
from secure_infer_server import check
from secure_infer_server.app import App
from secure_infer_server.callers.policy import Policy as Rules
from secure_infer_server.callers.policy import Rule
from secure_infer_server.gate import OpenGate
from secure_infer_server.models.served import ServedModel
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.open_inference.servicer import SERVICE, OpenInferenceServicer
from secure_infer_server.open_inference.v2 import inference_pb2 as pb
from secure_infer_server.settings import Policy, Settings
from secure_infer_server.workers.settings import WorkerSettings
from shared import hidden_head, linear_head, unit_rows

SMALL = linear_head(8, 3)
Tensor = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


class Raw:
    """Calls as messages, or as bytes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def bytes(self, method: str, data: bytes) -> bytes:
        return self._channel.unary_unary(f"/{SERVICE}/{method}")(data, timeout=20)

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        return pb.ModelInferResponse.FromString(self.bytes("ModelInfer", request.SerializeToString()))

    def close(self) -> None:
        self._channel.close()


def started(directory: Path, **changed: Any) -> tuple[App, str]:
    app = App(Settings(directory, "127.0.0.1", 0, insecure=True, workers=WorkerSettings(count=0), **changed))
    return app, app.start()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    SMALL.save(path / "small.head")
    hidden_head((8, 5, 2), ReLU()).save(path / "relu.head")
    return path


@pytest.fixture(scope="module")
def address(directory: Path) -> Iterator[str]:
    app, listening = started(directory, open_inference=True)
    yield listening
    app.stop()


@pytest.fixture(scope="module")
def raw(address: str) -> Iterator[Raw]:
    made = Raw(address)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[OpenInferenceClient]:
    with OpenInferenceClient(address, model="small") as made:
        yield made


@pytest.fixture(scope="module")
def good(client: OpenInferenceClient) -> pb.ModelInferRequest:
    request = request_of(client.encrypt(unit_rows(2, 8)))
    request.ClearField("id")  # so that each change of it is a request of its own
    return request


def request_of(query: Query) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name=query.model_name,
        model_version=query.model_version,
        id=query.request_id,
        parameters={name: pb.InferParameter(string_param=value) for name, value in query.parameters.items()},
        inputs=[Tensor(name="ciphertexts", datatype="UINT8", shape=query.ciphertexts.shape)],
        raw_input_contents=[query.ciphertexts.tobytes()],
    )


def changed(request: pb.ModelInferRequest, change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    copy = pb.ModelInferRequest.FromString(request.SerializeToString())
    change(copy)
    return copy


def shaped(*shape: int) -> Callable[[pb.ModelInferRequest], object]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].ClearField("shape")
        request.inputs[0].shape.extend(shape)

    return change


def contents(*raw: bytes) -> Callable[[pb.ModelInferRequest], object]:
    def change(request: pb.ModelInferRequest) -> None:
        request.ClearField("raw_input_contents")
        request.raw_input_contents.extend(raw)

    return change


def field(name: str, value: str) -> Callable[[pb.ModelInferRequest], object]:
    return lambda request: setattr(request, name, value)


def tensor(name: str, value: str) -> Callable[[pb.ModelInferRequest], object]:
    return lambda request: setattr(request.inputs[0], name, value)


def key(**parameter: Any) -> Callable[[pb.ModelInferRequest], object]:
    return lambda request: request.parameters["key_digest"].CopyFrom(pb.InferParameter(**parameter))


def version(of: str) -> Callable[[pb.ModelInferRequest], object]:
    """The model's or the plan's digest, replaced by one of nothing."""

    def change(request: pb.ModelInferRequest) -> None:
        model, _, plan = request.model_version.partition("-")
        request.model_version = f"{'00' * 32 if of == 'model' else model}-{'00' * 32 if of == 'plan' else plan}"

    return change


REFUSED = {
    "no model": (field("model_name", ""), "NOT_FOUND", "unknown model"),
    "another model": (field("model_name", "x" * 5000), "NOT_FOUND", "served: relu, small"),
    "a model without a plan": (field("model_name", "relu"), "FAILED_PRECONDITION", "relu"),
    "no version": (field("model_version", ""), "INVALID_ARGUMENT", "expected MODEL-PLAN"),
    "a number": (field("model_version", "1"), "INVALID_ARGUMENT", "expected MODEL-PLAN"),
    "capitals": (lambda r: setattr(r, "model_version", r.model_version.upper()), "INVALID_ARGUMENT", "MODEL-PLAN"),
    "spaces": (lambda r: setattr(r, "model_version", r.model_version + " "), "INVALID_ARGUMENT", "MODEL-PLAN"),
    "another model's version": (version("model"), "FAILED_PRECONDITION", "pinned"),
    "another plan": (version("plan"), "FAILED_PRECONDITION", "not offered"),
    "a long id": (field("id", "x" * 65), "INVALID_ARGUMENT", "at most 64 bytes, got 65"),
    "no key": (lambda r: r.parameters.clear(), "INVALID_ARGUMENT", "key"),
    "a key that is a number": (key(int64_param=7), "INVALID_ARGUMENT", "key_digest: expected a SHA-256 in hex"),
    "a short key": (key(string_param="ab"), "INVALID_ARGUMENT", "key_digest: expected a SHA-256 in hex"),
    "a key that is not held": (key(string_param="0f" * 32), "FAILED_PRECONDITION", "KeyService/UploadKeys"),
    "no tensor": (
        lambda r: r.ClearField("inputs"),
        "INVALID_ARGUMENT",
        "inputs: expected one, 'ciphertexts', got none",
    ),
    "two tensors": (lambda r: r.inputs.add(name="ciphertexts"), "INVALID_ARGUMENT", "inputs: expected one"),
    "another tensor": (tensor("name", "x" * 5000), "INVALID_ARGUMENT", "inputs: expected one"),
    "another datatype": (tensor("datatype", "FP32"), "INVALID_ARGUMENT", "expected datatype UINT8, got FP32"),
    "a datatype of nobody's": (tensor("datatype", "\0x"), "INVALID_ARGUMENT", "got none of the protocol's"),
    "another output": (lambda r: r.outputs.append(Output(name="logits")), "INVALID_ARGUMENT", "outputs: expected"),
    "typed contents": (
        lambda r: r.inputs[0].contents.uint_contents.append(1),
        "INVALID_ARGUMENT",
        "raw_input_contents, once, got 1 entries there and typed contents",
    ),
    "no raw contents": (contents(), "INVALID_ARGUMENT", "raw_input_contents, once, got 0"),
    "raw contents twice": (contents(b"", b""), "INVALID_ARGUMENT", "raw_input_contents, once, got 2"),
    "empty raw contents": (contents(b""), "INVALID_ARGUMENT", "bytes for shape"),
    "no shape": (shaped(), "INVALID_ARGUMENT", "expected shape"),
    "two axes": (shaped(2, 14400), "INVALID_ARGUMENT", "expected shape"),
    "an axis of none": (shaped(0, 1, 14400), "INVALID_ARGUMENT", "expected shape"),
    "a negative axis": (shaped(-2, -1, 14400), "INVALID_ARGUMENT", "expected shape"),
    "a huge axis": (shaped(2**62, 2**62, 2**62), "INVALID_ARGUMENT", "bytes for shape"),
    "single bytes": (shaped(28800, 1, 1), "INVALID_ARGUMENT", "expected shape"),
    "many queries": (shaped(100, 1, 288), "INVALID_ARGUMENT", "expected 1 to 64 in one call, got 100"),
    "another split": (shaped(1, 2, 14400), "INVALID_ARGUMENT", "expected 1 ciphertexts, got 2"),
    "another length": (shaped(1, 1, 28800), "INVALID_ARGUMENT", "expected 14400 bytes"),
    "residues out of range": (contents(b"\xff" * 28800), "INVALID_ARGUMENT", "ciphertext"),
    "too much": (contents(bytes(8 << 20)), "RESOURCE_EXHAUSTED", "larger than max"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_clear_status(raw: Raw, good: pb.ModelInferRequest, case: str) -> None:
    change, status, words = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refusal:
        raw.infer(changed(good, change))
    assert refusal.value.code().name == status
    assert words in refusal.value.details()
    assert len(refusal.value.details()) < 500


def test_it_answers_after_all_that(raw: Raw, good: pb.ModelInferRequest) -> None:
    response = raw.infer(changed(good, lambda r: r.outputs.append(Output(name="products"))))
    assert (response.model_name, response.model_version, response.id) == ("small", good.model_version, "")
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)[:2]) == ("products", "UINT8", [2, 1])
    assert len(response.raw_output_contents[0]) == np.prod(output.shape)


@settings(max_examples=60)
@given(data=st.data())
def test_mutations_are_answered_or_refused(raw: Raw, good: pb.ModelInferRequest, data: st.DataObject) -> None:
    """Every changed byte string has a status that says whose mistake it is."""
    message = bytearray(good.SerializeToString())
    head = len(message) - len(good.raw_input_contents[0])
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(message), len(message) - 1, head, head // 2]))
    try:
        raw.bytes("ModelInfer", bytes(message[:end]))
    except grpc.RpcError as refusal:
        assert refusal.code().name in {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}, refusal.details()


def test_what_is_described(raw: Raw, good: pb.ModelInferRequest, client: OpenInferenceClient) -> None:
    def ready(**request: str) -> bool:
        data = raw.bytes("ModelReady", pb.ModelReadyRequest(**request).SerializeToString())
        return pb.ModelReadyResponse.FromString(data).ready

    def metadata(**request: str) -> pb.ModelMetadataResponse:
        data = raw.bytes("ModelMetadata", pb.ModelMetadataRequest(**request).SerializeToString())
        return pb.ModelMetadataResponse.FromString(data)

    stale = "00" * 32 + good.model_version[64:]
    assert ready(name="small")
    assert ready(name="small", version=good.model_version)
    assert not ready(name="small", version=stale)
    assert not ready(name="relu")
    described = metadata(name="small")
    assert good.model_version in described.versions
    plan = client.plan
    (tensor,) = metadata(name="small", version=good.model_version).inputs
    assert list(tensor.shape) == [-1, plan.ciphertexts, plan.ciphertext_bytes]
    refusals = (
        ({"name": "nothing"}, "NOT_FOUND"),
        ({"name": "relu"}, "FAILED_PRECONDITION"),
        ({"name": "small", "version": stale}, "FAILED_PRECONDITION"),
        ({"name": "small", "version": "1"}, "INVALID_ARGUMENT"),
    )
    for request, status in refusals:
        with pytest.raises(grpc.RpcError) as refusal:
            metadata(**request)
        assert refusal.value.code().name == status


def test_versions_that_are_kept_are_listed_and_answered(directory: Path) -> None:
    app, listening = started(directory, open_inference=True, reload=ReloadSettings(watch=0.0))
    raw = Raw(listening)

    def metadata(version: str = "") -> pb.ModelMetadataResponse:
        request = pb.ModelMetadataRequest(name="small", version=version)
        return pb.ModelMetadataResponse.FromString(raw.bytes("ModelMetadata", request.SerializeToString()))

    try:
        with OpenInferenceClient(listening, model="small") as client:
            query, before = client.encrypt(unit_rows(1, 8)), list(metadata().versions)
            app.registry.replace(ServedModel.compile("small", linear_head(8, 3, seed=1), Policy()))
            assert list(metadata().versions)[-len(before) :] == before
            assert metadata().versions[0] != before[0]
            metadata(query.model_version)
            response = raw.infer(request_of(query))
            products = np.frombuffer(response.raw_output_contents[0], np.uint8).reshape(response.outputs[0].shape)
            logits = client.decrypt(query, products, response.model_version, response.id)
            assert np.abs(logits - SMALL.evaluate(unit_rows(1, 8))).max() <= client.plan.error_bound
    finally:
        raw.close()
        app.stop()


def test_a_check_of_the_configuration_names_it(directory: Path) -> None:
    made = Settings(directory, "127.0.0.1", 0, insecure=True, open_inference=True)
    assert "KServe" in check.check(made, None).on["open_inference"]


def test_not_ready_while_it_drains() -> None:
    served = SimpleNamespace(offered={b"": None})
    registry: Any = SimpleNamespace(get=lambda name: served, readiness=lambda name: None)
    inference: Any = None
    draining = OpenInferenceServicer(inference, registry, OpenGate(), lambda: False)
    assert not pb.ServerReadyResponse.FromString(
        asyncio.run(draining.server_ready(pb.ServerReadyRequest(), None))
    ).ready
    assert not pb.ModelReadyResponse.FromString(asyncio.run(draining.model_ready(pb.ModelReadyRequest(), None))).ready


def test_off_unless_asked_for(directory: Path) -> None:
    app, listening = started(directory)
    raw = Raw(listening)
    try:
        with pytest.raises(grpc.RpcError) as refusal:
            raw.bytes("ServerLive", b"")
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        raw.close()
        app.stop()


def test_a_rule_for_our_own_service_does_not_open_it() -> None:
    caller: Any = SimpleNamespace(identity="cn:ward-7", role="client", fingerprint="")
    granted = {"client": ("cn:*",)}
    for methods, allowed in ((("InferenceService/*",), False), ((f"{SERVICE}/*",), True)):
        policy = Rules((Rule(("client",), (), methods),), granted)
        assert policy.allows(caller, f"/{SERVICE}/ModelInfer", "small") is allowed


def test_an_answer_of_another_request_is_refused(address: str, raw: Raw) -> None:
    with OpenInferenceClient(address, model="small") as client:
        query = client.encrypt(unit_rows(1, 8))
        products = np.zeros((1, client.plan.products, client.plan.product_bytes), np.uint8)
        with pytest.raises(AnswerRefused, match="uint8"):
            client.decrypt(query, products[0], query.model_version, query.request_id)
        with pytest.raises(AnswerRefused, match="bound to another request"):
            client.decrypt(query, products, query.model_version, "another")
        with pytest.raises(InvalidInput, match="its key was destroyed"):
            client.decrypt(query, products, query.model_version, query.request_id)


def test_what_cannot_be_encrypted(client: OpenInferenceClient) -> None:
    with pytest.raises(InvalidInput, match="expected at most 64"):
        client.encrypt(unit_rows(65, 8))
    with pytest.raises(SettingsError, match="two parties"):
        OpenInferenceClient(("127.0.0.1:1", "127.0.0.1:2"), model="small", scheme="mpc")  # type: ignore[arg-type]


def test_our_errors_arrive_as_themselves(raw: Raw, good: pb.ModelInferRequest) -> None:
    """The status carries the catalogue's reason, as everywhere."""
    with pytest.raises(grpc.RpcError) as refusal:
        raw.infer(changed(good, key(string_param="0f" * 32)))
    error = transport.translate("x", 1.0, refusal.value)
    assert (error.reason, error.details) == ("UNKNOWN_KEY", {"key_digest": "0f" * 32})
