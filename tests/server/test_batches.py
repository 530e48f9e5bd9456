"""The server's side of batches: streams that are not what the plan says, bounds, and single queries meanwhile."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import (
    CallFailed,
    MalformedRequest,
    ModelChanged,
    PlanRefused,
    ResourceExhausted,
    SecretKeyReceived,
    SecureInferError,
    ServerUnavailable,
    SettingsError,
)
from secure_infer.heads import Head, Linear, Square
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer.wire import plans as wire_plans
from secure_infer_client import Client, transport
from secure_infer_client.keys import SecretKey
from secure_infer_server import batches as server_batches
from secure_infer_server import servicer
from secure_infer_server.app import App
from secure_infer_server.batches import Answer, Batches, Event, allowed_seconds, evaluate_batch
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import OfferedBatch, ServedModel
from secure_infer_server.settings import Policy, Settings
from shared import linear_head, unit_rows, until

HEAD = linear_head(8, 3)
ROWS = unit_rows(50, 8)
Request = inference_pb2.InferBatchRequest


def square_head(features: int = 6, units: int = 4) -> Head:
    rng = np.random.default_rng(0)
    layers = [Linear(rng.normal(size=(units, features)) / 2), Square(), Linear(rng.normal(size=(2, units)) / 2)]
    return Head(layers, labels=["no", "yes"], input_bound=1.0, input_norm=1.0)


class Caller:
    """A handmade client of one batch plan."""

    def __init__(self, app: App, address: str, name: str = "m") -> None:
        self.model = app.registry.get(name)
        self.offered = next(iter(self.model.batches.values()))
        self.plan: BatchPlan = self.offered.plan
        self.key = SecretKey(self.plan.parameters)
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.request_id = secrets.token_bytes(16)

    def header(self, **changes: object) -> inference_pb2.BatchHeader:
        fields: dict = {
            "model": self.model.spec.name,
            "model_digest": self.model.digest,
            "plan_digest": bytes.fromhex(self.plan.digest),
            "key_digest": self.key.upload(self.plan).digest,
            "request_id": self.request_id,
            "records": 5,
        }
        return inference_pb2.BatchHeader(**(fields | changes))

    def features(self, rows: np.ndarray) -> list[bytes]:
        return [self.key.encrypt_batch(polynomial) for polynomial in pack_batch(self.plan, rows)]

    def upload(self) -> None:
        upload = self.key.upload(self.plan)
        header = keys_pb2.KeyHeader(
            model=self.model.spec.name,
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=upload.digest,
            size=len(upload.data),
        )
        chunks = [upload.data[start : start + (1 << 20)] for start in range(0, len(upload.data), 1 << 20)]
        messages = [keys_pb2.UploadKeysRequest(header=None if i else header, chunk=c) for i, c in enumerate(chunks)]
        keys_pb2_grpc.KeyServiceStub(self.channel).UploadKeys(iter(messages), timeout=20)

    def send(self, messages: list[Message] | Iterator[Message], timeout: float = 20.0) -> list[Message]:
        """Every response; a status comes back as the catalogued error it carries."""
        return transport.call(
            self.address, timeout, lambda: list(self.stub.InferBatch(iter(messages), timeout=timeout))
        )

    def batch(self, rows: np.ndarray) -> list[Message]:
        return [
            Request(header=self.header(records=len(rows))),
            *(Request(ciphertexts=[c]) for c in self.features(rows)),
        ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    HEAD.save(path / "m.head")
    square_head().save(path / "q.head")
    return path


@pytest.fixture(scope="module")
def app(directory: Path) -> Iterator[tuple[App, str]]:
    made = App(Settings(directory, "127.0.0.1", 0, insecure=True, blinds_per_key=0, batches=1))
    address = made.start()
    yield made, address
    made.stop()


@pytest.fixture(scope="module")
def caller(app: tuple[App, str]) -> Caller:
    made = Caller(*app)
    made.upload()
    return made


def read(caller: Caller, responses: list[Message], count: int) -> np.ndarray:
    products = [r.answer.product for r in responses if r.WhichOneof("event") == "answer"]
    return read_batch(caller.plan, caller.key.polynomial(), products, count)


def test_a_batch_is_answered_class_by_class(caller: Caller) -> None:
    responses = caller.send(caller.batch(ROWS))
    kinds = [response.WhichOneof("event") for response in responses]
    assert [kind for kind in kinds if kind != "progress"] == ["answer"] * 3 + ["times"]
    assert kinds.index("progress") == 0
    assert {response.request_id for response in responses} == {caller.request_id}
    assert {response.model_digest for response in responses} == {caller.model.digest}
    done = [r.progress.done if r.HasField("progress") else r.answer.done for r in responses[:-1]]
    assert done == sorted(done)
    assert (done[-1], responses[-1].times.blinds_inline) == (1.0, 3)
    assert responses[-1].times.total_us >= responses[-1].times.evaluate_us > 0
    assert np.abs(read(caller, responses, 50) - HEAD.evaluate(ROWS)).max() <= caller.plan.error_bound


def test_any_number_of_features_a_message(caller: Caller) -> None:
    features = caller.features(ROWS)
    for steps in ([8], [1, 7], [3, 3, 2]):
        messages, start = [Request(header=caller.header())], 0
        for step in steps:
            messages.append(Request(ciphertexts=features[start : start + step]))
            start += step
        found = read(caller, caller.send(messages), 50)
        assert np.abs(found - HEAD.evaluate(ROWS)).max() <= caller.plan.error_bound


def test_hidden_layers_take_their_switching_keys(app: tuple[App, str]) -> None:
    caller = Caller(*app, "q")
    (unknown,) = caller.send(caller.batch(unit_rows(3, 6)))
    assert unknown.unknown_key.key_digest == caller.key.upload(caller.plan).digest
    caller.upload()
    rows = unit_rows(caller.plan.records, 6)
    found = read(caller, caller.send(caller.batch(rows)), len(rows))
    assert np.abs(found - square_head().evaluate(rows)).max() <= caller.plan.error_bound


def test_an_unknown_key_is_said_before_any_feature(caller: Caller) -> None:
    sent = threading.Event()

    def messages() -> Iterator[Message]:
        yield Request(header=caller.header(key_digest=bytes(32)))
        sent.wait(20)

    (response,) = caller.send(messages())
    sent.set()
    assert response.WhichOneof("event") == "unknown_key"
    assert response.unknown_key.key_digest == bytes(32)


def bad_streams() -> dict[str, tuple[Callable[[Caller, list[bytes]], list[Message]], type[SecureInferError], str]]:
    def of(caller: Caller, *parts: list[bytes], **header: object) -> list[Message]:
        return [Request(header=caller.header(**header)), *(Request(ciphertexts=part) for part in parts)]

    malformed = MalformedRequest
    return {
        "nothing": (lambda c, f: [], malformed, "expected a header"),
        "no header": (lambda c, f: [Request(ciphertexts=f)], malformed, "expected a header"),
        "header with features": (lambda c, f: [Request(header=c.header(), ciphertexts=f)], malformed, "nothing else"),
        "two headers": (lambda c, f: of(c) + of(c, f), malformed, "one header"),
        "short": (lambda c, f: of(c, f[:-1]), malformed, "expected 8 ciphertexts, got 7"),
        "no features": (lambda c, f: of(c), malformed, "expected 8 ciphertexts, got 0"),
        "long": (lambda c, f: of(c, f, f[:1]), malformed, "expected 8 ciphertexts"),
        "long in one": (lambda c, f: of(c, f + f[:1]), malformed, "expected 8 ciphertexts"),
        "an empty message": (lambda c, f: of(c, f[:3], [], f[3:]), malformed, "expected 8 ciphertexts"),
        "a short ciphertext": (lambda c, f: of(c, f[:7], [f[7][:-1]]), malformed, "ciphertext: expected"),
        "a long ciphertext": (lambda c, f: of(c, [f[0] + b"x"]), malformed, "ciphertext: expected"),
        "an empty ciphertext": (lambda c, f: of(c, [b""]), malformed, "ciphertext: expected"),
        "large residues": (lambda c, f: of(c, [b"\xff" * len(f[0])]), malformed, "not below their prime"),
        "no records": (lambda c, f: of(c, f, records=0), malformed, "expected 1 to"),
        "many records": (lambda c, f: of(c, f, records=1 << 20), malformed, "expected 1 to"),
        "another model's digest": (lambda c, f: of(c, f, model_digest=bytes(32)), ModelChanged, "pinned"),
        "an unknown plan": (lambda c, f: of(c, f, plan_digest=bytes(32)), PlanRefused, "not offered"),
        "a plan of single queries": (
            lambda c, f: of(c, f, plan_digest=next(iter(c.model.offered))),
            PlanRefused,
            "not offered for batches",
        ),
        "a ternary polynomial": (lambda c, f: of(c, [bytes(len(f[0]))]), SecretKeyReceived, "secret key"),
    }


@pytest.mark.parametrize("name", bad_streams())
def test_streams_that_are_not_a_batch_are_refused(caller: Caller, name: str) -> None:
    make, kind, text = bad_streams()[name]
    with pytest.raises(kind, match=text):
        caller.send(make(caller, caller.features(ROWS)))
    # Nothing is left behind: the one place is free again.
    assert len(caller.send(caller.batch(ROWS))) > 4


def test_a_batch_plan_is_none_for_single_queries(caller: Caller) -> None:
    request = inference_pb2.InferRequest(
        model="m",
        model_digest=caller.model.digest,
        plan_digest=bytes.fromhex(caller.plan.digest),
        queries=[inference_pb2.Query(ciphertexts=[bytes(9)])],
    )
    with pytest.raises(PlanRefused, match="not offered for single queries"):
        transport.call(caller.address, 10, lambda: caller.stub.Infer(request, timeout=10))


def held_open(caller: Caller, end: threading.Event, features: int = 3) -> Iterator[Message]:
    """A batch that stops in the middle until `end`."""
    batch = caller.batch(ROWS)
    yield from batch[: features + 1]
    end.wait(60)
    yield from batch[features + 1 :]


def started(call: Iterator[Message]) -> None:
    """Wait for the first progress: the batch then holds its place."""
    assert next(call).WhichOneof("event") == "progress"


def test_places_are_bounded_and_single_queries_go_on_meanwhile(app: tuple[App, str], caller: Caller) -> None:
    end = threading.Event()
    call = caller.stub.InferBatch(held_open(caller, end), timeout=60)
    started(call)
    with pytest.raises(ResourceExhausted, match="batches are under way") as refused:
        caller.send(caller.batch(ROWS))
    assert refused.value.details["again"]
    with Client(app[1], model="m") as client:  # a batch is half way, and stays so until this was answered
        assert np.abs(client.predict(ROWS[:2]) - HEAD.evaluate(ROWS[:2])).max() <= client.plan.error_bound
    end.set()
    assert list(call)[-1].WhichOneof("event") == "times"


def until_free(caller: Caller) -> list[Message]:
    answers: list[Message] = []

    def is_free() -> bool:
        with suppress(ResourceExhausted):
            answers.extend(caller.send(caller.batch(ROWS)))
        return bool(answers)

    until(is_free)
    return answers


def test_a_cancelled_batch_gives_its_place_back_and_keeps_its_worker(app: tuple[App, str], caller: Caller) -> None:
    lane, end = app[0].front.lane, threading.Event()
    until_free(caller)
    until(lambda: not lane._busy)
    pids, before = lane.pids(), lane.figures()
    call = caller.stub.InferBatch(held_open(caller, end), timeout=60)
    started(call)
    call.cancel()
    end.set()
    assert until_free(caller)
    until(lambda: not lane._busy)
    assert lane.pids() == pids
    assert (lane.figures().died, lane.figures().replaced) == (before.died, before.replaced)


def test_a_deadline_ends_a_batch(caller: Caller) -> None:
    end = threading.Event()
    with pytest.raises(ServerUnavailable, match="no answer within"):
        caller.send(held_open(caller, end), timeout=0.5)
    end.set()
    assert until_free(caller)


def test_a_stalled_batch_ends(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "STALL_SECONDS", 0.3)
    end = threading.Event()
    with pytest.raises((CallFailed, ServerUnavailable)):
        caller.send(held_open(caller, end))
    end.set()
    assert until_free(caller)


def test_calls_that_send_nothing_cost_nobody_else_anything(
    app: tuple[App, str], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicer, "HEADER_SECONDS", 60.0)
    end = threading.Event()

    def nothing() -> Iterator[Message]:
        end.wait(60)
        yield from ()

    calls = [caller.stub.InferBatch(nothing(), timeout=60) for _ in range(90)]  # fewer than one connection may have
    with Client(app[1], model="m", timeout=5) as client:
        client.predict(ROWS[:1])
    assert until_free(caller)
    assert not any(call.done() for call in calls)
    end.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}


def test_a_header_is_not_waited_for_long(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "HEADER_SECONDS", 0.2)
    end = threading.Event()

    def nothing() -> Iterator[Message]:
        end.wait(60)
        yield from ()

    with pytest.raises((CallFailed, ServerUnavailable)):
        caller.send(nothing())
    end.set()
    assert until_free(caller)


def test_a_batch_that_drips_is_told_how_long_it_may_take(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BATCH_SECONDS", 0.2), ("BATCH_RATE", 1e12), ("BATCH_ESTIMATES", 0.0)):
        monkeypatch.setattr(server_batches, name, value)

    def dripping() -> Iterator[Message]:
        for message in caller.batch(ROWS):
            yield message
            threading.Event().wait(0.1)

    with pytest.raises(CallFailed, match="took longer than the 0 s"):
        caller.send(dripping())
    monkeypatch.undo()
    assert until_free(caller)


def test_single_queries_are_answered_while_a_batch_is_computed(tmp_path: Path) -> None:
    """A batch of hidden layers takes a second or more of the server; queries sent meanwhile are done before it is."""
    square_head(64, 64).save(tmp_path / "big.head")
    HEAD.save(tmp_path / "m.head")
    app = App(Settings(tmp_path, "127.0.0.1", 0, insecure=True, blinds_per_key=0))
    address = app.start()
    try:
        caller = Caller(app, address, "big")
        caller.upload()
        batch = caller.batch(unit_rows(20, 64))
        order: list[str] = []

        def run() -> None:
            caller.send(batch)
            order.append("batch")

        with Client(address, model="m") as client:
            client.predict(ROWS[:1])
            thread = threading.Thread(target=run)
            thread.start()
            while len(order) < 3 and "batch" not in order:
                client.predict(ROWS[:1])
                order.append("query")
            thread.join()
        assert order[0] == "query"
    finally:
        app.stop()


# The dataplane, without sockets.


def compiled(**policy: object) -> ServedModel:
    return ServedModel.compile("m", HEAD, Policy(**policy))  # type: ignore[arg-type]


def batches_of(model: ServedModel, places: int, memory: int) -> Batches:
    return Batches(Registry({"m": model}, {}), places, memory)


def evaluate(
    batches: Batches,
    model: ServedModel,
    plan: BatchPlan,
    messages: Iterator[list[bytes]],
    abandoned: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """The events of one batch of an input-private plan."""
    offered = batches.offered("m", model.digest, bytes.fromhex(plan.digest), 50)
    with batches.place(offered.program.memory):
        yield from evaluate_batch(offered.program, None, messages, allowed_seconds(offered), abandoned)


def test_memory_is_bounded_over_all_batches() -> None:
    model = compiled(privacy=Privacy.INPUT_PRIVATE)
    offered = next(b for b in model.batches.values() if b.plan.privacy is Privacy.INPUT_PRIVATE)
    batches = batches_of(model, 8, 2 * offered.program.memory)
    key = SecretKey(offered.plan.parameters)
    features = [key.encrypt_batch(p) for p in pack_batch(offered.plan, ROWS)]

    def one() -> Iterator[object]:
        return evaluate(batches, model, offered.plan, ([feature] for feature in features))

    running = [one(), one()]
    for each in running:
        next(each)
    with pytest.raises(ResourceExhausted, match="MiB"):
        next(one())
    running[0].close()  # type: ignore[attr-defined]
    assert len(list(one())) == 8 + 3 + 1 + len(offered.plan.parameters.data_primes)


def test_nobody_waiting_ends_the_work() -> None:
    model = compiled(privacy=Privacy.INPUT_PRIVATE)
    offered = next(iter(model.batches.values()))
    batches = batches_of(model, 1, 1 << 30)
    key = SecretKey(offered.plan.parameters)
    features = [[key.encrypt_batch(p)] for p in pack_batch(offered.plan, ROWS)]
    events = evaluate(batches, model, offered.plan, iter(features), abandoned=lambda: True)
    with pytest.raises(CallFailed, match="cancelled"):
        list(events)


@pytest.fixture
def small_batch() -> tuple[ServedModel, OfferedBatch, list[bytes]]:
    model = compiled(privacy=Privacy.INPUT_PRIVATE)
    offered = next(b for b in model.batches.values() if b.plan.privacy is Privacy.INPUT_PRIVATE)
    key = SecretKey(offered.plan.parameters)
    return model, offered, [key.encrypt_batch(p) for p in pack_batch(offered.plan, ROWS)]


@pytest.mark.parametrize(("share", "accepted"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("slow", ["features", "answers"])
def test_a_whole_batch_has_one_deadline(
    small_batch: tuple[ServedModel, OfferedBatch, list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
    share: float,
    accepted: bool,
) -> None:
    """Waiting for `share` of what is allowed, spread evenly over the features or the answers."""
    model, offered, features = small_batch
    batches = batches_of(model, 1, 1 << 30)
    waited = 0.0
    monkeypatch.setattr(server_batches, "perf_counter", lambda: waited)

    def dripping() -> Iterator[list[bytes]]:
        nonlocal waited
        for feature in features:
            waited += share * allowed_seconds(offered) / len(features) if slow == "features" else 0.0
            yield [feature]

    def run() -> None:
        nonlocal waited
        for event in evaluate(batches, model, offered.plan, dripping()):
            if slow == "answers" and isinstance(event, Answer):
                waited += share * allowed_seconds(offered) / offered.plan.products

    if accepted:
        run()
    else:
        with pytest.raises(CallFailed, match="took longer"):
            run()
    share = 0.0
    run()  # the place is free again


def test_the_deadline_grows_with_bytes_and_work(
    small_batch: tuple[ServedModel, OfferedBatch, list[bytes]],
) -> None:
    _, offered, features = small_batch
    assert allowed_seconds(offered) > 60 + 8 * sum(map(len, features)) / 1e6
    assert allowed_seconds(replace(offered, seconds=offered.seconds + 10)) == allowed_seconds(offered) + 40


def test_the_operator_decides_over_batch_plans() -> None:
    usual = compiled()
    assert {b.plan.privacy for b in usual.batches.values()} == {Privacy.BOTH_PRIVATE}
    assert all(b.plan.smudging_bits >= 18 for b in usual.batches.values())
    assert not compiled(batch_smudging=0).batches
    fast = compiled(batch_smudging=2)
    assert min(b.plan.smudging_bits for b in fast.batches.values()) < 18
    assert all(o.plan.smudging_bits >= 18 for o in fast.offered.values())
    levels = compiled(privacy=Privacy.INPUT_PRIVATE)
    for level in Privacy:
        assert {b.plan.privacy for b in levels.batch_offers(level)} == {level}
    assert not ServedModel.compile("m", HEAD, Policy(), batch_memory=1 << 20).batches
    with pytest.raises(SettingsError, match="batch smudging"):
        Policy(batch_smudging=41)


def test_offers_hold_batches_after_single_queries(app: tuple[App, str]) -> None:
    with grpc.insecure_channel(app[1]) as channel:
        offers = models_pb2_grpc.ModelServiceStub(channel).GetModel(models_pb2.GetModelRequest(model="m")).offers
    kinds = [offer.plan.WhichOneof("kind") for offer in offers]
    assert kinds == sorted(kinds, key=lambda kind: kind == "batch")
    assert {"coefficient", "batch"} == set(kinds)
    records = [offer.plan.parameters.degree for offer in offers if offer.plan.WhichOneof("kind") == "batch"]
    assert records == sorted(set(records))


def test_batch_plans_round_trip() -> None:
    for head in (HEAD, square_head()):
        for offered in ServedModel.compile("m", head, Policy(privacy=Privacy.INPUT_PRIVATE)).batches.values():
            message = wire_plans.to_proto(offered.plan)
            assert wire_plans.from_proto(message) == offered.plan
            message.batch.unit *= 2
            with pytest.raises(PlanRefused, match="digest"):
                wire_plans.from_proto(message)
            message.batch.places = 9
            with pytest.raises(PlanRefused, match="layout"):
                wire_plans.from_proto(message)


def test_a_server_may_offer_none(directory: Path) -> None:
    registry = Registry.load(Settings(directory, "127.0.0.1", 0, insecure=True, batches=0))
    assert not any(registry.get(name).batches for name in registry.names())
