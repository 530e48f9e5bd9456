"""The server as its callers meet it: idle ones, too many, those who leave, and workers that die under their requests."""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import (
    CallFailed,
    InternalFault,
    PrivacyRefused,
    ResourceExhausted,
    SecureInferError,
    ServerUnavailable,
)
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer_client import Client, transport
from secure_infer_client.keys import SecretKey
from secure_infer_client.local_server import LocalServer
from secure_infer_server import rpc
from secure_infer_server.app import App
from secure_infer_server.gate import NOTHING, Ask, OpenGate
from secure_infer_server.keys.names import KeyName
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings
from shared import hidden_head, linear_head, unit_rows, until

CHEAP, SLOW = linear_head(8, 3), hidden_head((600, 4, 2))
HEADS = {"cheap": CHEAP, "slow": SLOW}
INFER = "/secure_infer.v1.InferenceService/Infer"
CHUNK = 1 << 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, head in HEADS.items():
        head.save(path / f"{name}.head")
    return path


def served(directory: Path, gate: Any = None, **workers: int) -> tuple[App, str]:
    settings = Settings(
        directory, "127.0.0.1", 0, insecure=True, blinds_per_key=4, workers=WorkerSettings(**({"count": 2} | workers))
    )
    app = App(settings, gate)
    return app, app.start()


@pytest.fixture(scope="module")
def app(directory: Path) -> Iterator[tuple[App, str]]:
    made = served(directory)
    until(lambda: len(made[0].front.pool.pids()) == 2)  # ready with the first of them
    yield made
    made[0].stop()


class Session:
    """A key that the server holds, requests under it, and answers held to the plaintext's."""

    def __init__(self, address: str, model: str = "slow") -> None:
        self.address, self.head = address, HEADS[model]
        with Client(address, model=model) as client:
            spec, plan = client.spec, client.plan
        assert isinstance(plan, QueryPlan)
        self.spec, self.plan = spec, plan
        self.key = SecretKey(plan.parameters)
        self.rows = self.key.rows(plan)
        self.channel = grpc.insecure_channel(address)
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.upload()
        self.x = unit_rows(3, self.head.features)
        self.queries = [
            inference_pb2.Query(ciphertexts=[self.key.encrypt(p) for p in pack_input(plan, row)]) for row in self.x
        ]

    def upload(self) -> None:
        data = self.key.upload(self.plan)
        header = keys_pb2.KeyHeader(
            model=self.spec.name,
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=data.digest,
            size=len(data.data),
        )
        chunks = [data.data[start : start + CHUNK] for start in range(0, len(data.data), CHUNK)]
        messages = [keys_pb2.UploadKeysRequest(header=None if i else header, chunk=c) for i, c in enumerate(chunks)]
        keys_pb2_grpc.KeyServiceStub(self.channel).UploadKeys(iter(messages), timeout=60)

    @property
    def key_name(self) -> KeyName:
        return KeyName("", bytes.fromhex(self.plan.digest), self.key.upload(self.plan).digest)

    def request(self, row: int = 0, count: int = 1) -> inference_pb2.InferRequest:
        return inference_pb2.InferRequest(
            model=self.spec.name,
            model_digest=bytes.fromhex(self.spec.digest),
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=self.key.upload(self.plan).digest,
            request_id=secrets.token_bytes(16),
            queries=[self.queries[row]] * count,
        )

    def infer(self, row: int = 0, timeout: float = 60.0) -> None:
        """One request; its answer is right."""
        request = self.request(row)
        response = transport.call(self.address, timeout, lambda: self.stub.Infer(request, timeout=timeout))
        assert response.request_id == request.request_id
        (answer,) = response.answers.answers
        found = read_answer(self.plan, self.rows, answer.products)
        assert np.abs(found - self.head.evaluate(self.x[row : row + 1])[0]).max() <= self.plan.error_bound


@pytest.fixture(scope="module")
def slow(app: tuple[App, str]) -> Session:
    return Session(app[1])


def test_cheap_plans_stay_and_others_go_to_workers(app: tuple[App, str], slow: Session) -> None:
    before = [place.worker.jobs for place in app[0].front.pool._slots if place.worker]
    Session(app[1], "cheap").infer()
    assert [place.worker.jobs for place in app[0].front.pool._slots if place.worker] == before
    slow.infer()
    assert sum(place.worker.jobs for place in app[0].front.pool._slots if place.worker) == sum(before) + 1


def test_requests_of_a_session_meet_its_keys(app: tuple[App, str]) -> None:
    sessions = [Session(app[1]) for _ in range(3)]
    for _ in range(3):
        for session in sessions:
            session.infer()
    names = [(session.plan.digest, session.key_name.id.hex()) for session in sessions]
    held = [[place.worker.holds(name) for place in app[0].front.pool._slots if place.worker] for name in names]
    assert all(sum(holding) == 1 for holding in held)


# Callers that cost nothing.


def test_idle_and_dripping_calls_take_nothing_from_others(app: tuple[App, str]) -> None:
    end = threading.Event()

    def idle() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    def dripping() -> Iterator[keys_pb2.UploadKeysRequest]:
        while not end.wait(0.05):
            yield keys_pb2.UploadKeysRequest(header=keys_pb2.KeyHeader(model="cheap", size=1 << 20))

    with grpc.insecure_channel(app[1]) as channel, Client(app[1], model="cheap", timeout=5) as client:
        send_nothing = channel.stream_unary(INFER)
        calls = [send_nothing.future(idle()) for _ in range(100)]
        calls += [keys_pb2_grpc.KeyServiceStub(channel).UploadKeys.future(dripping()) for _ in range(20)]
        for _ in range(5):
            client.predict(unit_rows(1, 8))
        assert not any(call.done() for call in calls[:100])
        end.set()
        assert {call.code() for call in calls[:100]} == {grpc.StatusCode.INVALID_ARGUMENT}


def test_a_message_is_not_waited_for_for_ever(app: tuple[App, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MESSAGE_SECONDS", 0.1)
    end = threading.Event()

    def idle() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    with grpc.insecure_channel(app[1]) as channel:
        call = channel.stream_unary(INFER).future(idle())
        assert "did not come within 0.1 s" in call.exception(timeout=20).details()
        end.set()


# Too many, and those who leave.


def test_more_than_the_queue_holds_is_refused_and_then_served(directory: Path) -> None:
    app, address = served(directory, count=1, queue=4)
    try:
        session = Session(address)
        until(lambda: bool(app.front.pool.pids()))

        def ask(_: int) -> str:
            try:
                session.infer()
            except ResourceExhausted as refused:
                assert refused.details["again"] == "shortly"
                return "refused"
            return "answered"

        with ThreadPoolExecutor(40) as threads, grpc.insecure_channel(address) as channel:
            found = list(threads.map(ask, range(120)))
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert set(found) == {"refused", "answered"}
        assert found.count("answered") >= 5
        assert app.front.pool.waiting() == 0
        session.infer()
    finally:
        app.stop()


def test_work_for_callers_who_left_ends(app: tuple[App, str], slow: Session) -> None:
    pids, pool = app[0].front.pool.pids(), app[0].front.pool
    busy = [slow.stub.Infer.future(slow.request(count=slow.plan.queries_per_call), timeout=60) for _ in range(6)]
    until(lambda: any(place.running for place in pool._slots))
    for call in busy:
        call.cancel()
    until(lambda: not any(place.running or place.queue for place in pool._slots))
    slow.infer()
    assert pool.pids() == pids


def test_deadlines_end_work(app: tuple[App, str], slow: Session) -> None:
    request = slow.request(count=slow.plan.queries_per_call)
    # The server's word for it may come first: its deadline is the same moment.
    with pytest.raises((ServerUnavailable, CallFailed), match=r"no answer within|the deadline passed"):
        transport.call(slow.address, 0.02, lambda: slow.stub.Infer(request, timeout=0.02))
    until(lambda: not any(place.running or place.queue for place in app[0].front.pool._slots))
    slow.infer()


# Workers that die.


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_worker_that_dies_costs_nobody_an_answer(app: tuple[App, str], slow: Session, how: signal.Signals) -> None:
    pool = app[0].front.pool
    with ThreadPoolExecutor(4) as threads:
        for _ in range(2):
            until(lambda: len(pool.pids()) == 2)
            calls = [threads.submit(slow.infer, number % 3) for number in range(12)]
            until(lambda: any(place.running for place in pool._slots))
            victim = next(place.worker for place in pool._slots if place.running and place.worker)
            os.kill(victim.pid, how)
            for call in calls:
                call.result(60)
            assert victim.lost
    until(lambda: len(pool.pids()) == 2)


def test_many_deaths_at_random_moments(app: tuple[App, str], slow: Session) -> None:
    """A request that loses two workers fails with one clear error; all others are answered, and rightly."""
    pool, end, answered = app[0].front.pool, threading.Event(), []

    def ask(row: int) -> None:
        while not end.is_set():
            try:
                slow.infer(row)
                answered.append(row)
            except InternalFault as fault:
                assert "worker" in fault.message

    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(ask, row) for row in range(3)]
        for _ in range(12):
            time.sleep(random.uniform(0.0, 0.3))
            if pids := pool.pids():
                os.kill(random.choice(pids), signal.SIGKILL)
        until(lambda: len(pool.pids()) == 2, 60)
        so_far = len(answered)
        until(lambda: len(answered) > so_far + 6)
        end.set()
        for call in calls:
            call.result(60)


def test_a_batch_whose_worker_dies_fails_and_the_next_one_does_not(directory: Path) -> None:
    app, address = served(directory, count=1)
    try:
        with Client(address, model="cheap") as client:
            x = unit_rows(client.batch_plans[0].records, 8)
            assert np.abs(client.predict(x) - CHEAP.evaluate(x)).max() <= 0.1
            ended = threading.Event()

            def kill() -> None:
                while not ended.wait(0.001):
                    for pid in app.front.lane.pids():
                        os.kill(pid, signal.SIGKILL)
                        return

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(InternalFault, match="worker of this batch died"):
                client.predict(x)
            ended.set()
            killer.join()
            assert np.abs(client.predict(x) - CHEAP.evaluate(x)).max() <= 0.1
    finally:
        app.stop()


# Other numbers of workers.


def test_threads_instead_of_workers(directory: Path) -> None:
    app, address = served(directory, count=0)
    try:
        session = Session(address)
        session.infer()
        assert set(app.front.pool.pids()) == {os.getpid()}
        with Client(address, model="cheap") as client:
            x = unit_rows(client.batch_plans[0].records, 8)
            assert np.abs(client.predict(x) - CHEAP.evaluate(x)).max() <= 0.1
    finally:
        app.stop()


def test_replaced_workers_answer_as_well(directory: Path) -> None:
    app, address = served(directory, count=1, requests=3)
    try:
        session = Session(address)
        seen = set()
        for number in range(7):
            session.infer(number % 3)
            seen.update(app.front.pool.pids())
        assert len(seen) >= 2
    finally:
        app.stop()


def test_no_worker_is_started_that_no_plan_needs(tmp_path: Path) -> None:
    CHEAP.save(tmp_path / "cheap.head")
    app, address = served(tmp_path)
    try:
        Session(address, "cheap").infer()
        assert not app.front.pool._slots
    finally:
        app.stop()


# The end.


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def works(server: LocalServer) -> bool:
    """Whether a worker of it is at work on a query."""
    with urllib.request.urlopen(f"http://{server.ready['metrics']}/metrics") as page:
        return b'secure_infer_workers_busy{work="queries"} 0.0' not in page.read()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_never_outlive_their_server(directory: Path, how: signal.Signals) -> None:
    server = LocalServer(directory, "--workers", "2", "--blinds-per-key", "4", "--metrics", "127.0.0.1:0")
    session = Session(server.address)
    session.infer()
    family = children(server.process.pid)
    assert len(family) >= 3
    call = session.stub.Infer.future(session.request(count=4), timeout=30)
    until(lambda: call.done() or works(server))
    server.process.send_signal(how)
    if how is signal.SIGTERM:
        assert len(call.result(30).answers.answers) == 4
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log()
    else:
        server.process.wait(20)
    until(lambda: not any(alive(pid) for pid in family))


def test_a_second_signal_ends_at_once(directory: Path) -> None:
    server = LocalServer(directory, "--workers", "1")
    session = Session(server.address)
    call = session.stub.Infer.future(session.request(count=session.plan.queries_per_call), timeout=30)
    family = children(server.process.pid)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(15) in (-signal.SIGTERM, 0)  # a drain may take 20
    until(lambda: not any(alive(pid) for pid in family))
    call.cancel()


# The gate.


class Notebook(OpenGate):
    """Writes down what passes; turns callers away, or hands out stored answers, when told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, int]] = []
        self.knocked: list[str] = []
        self.finished: list[tuple[str, bytes | None]] = []
        self.stored: bytes | None = None
        self.closed = False
        self.caller, self.records = "ward-7", 0

    def authenticate(self, context: Any, method: str) -> None:
        self.knocked.append(method.rpartition("/")[2])
        if self.closed:
            raise PrivacyRefused("nobody comes in today")

    def admit(self, context: Any, method: str, model: str | None = None, ask: Ask = NOTHING) -> Any:
        self.seen.append((method.rpartition("/")[2], model, ask.records))
        return self

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_answer(self) -> None:
        pass

    def finish(self, outcome: str, answer: bytes | None = None, **sizes: int) -> None:
        self.finished.append((outcome, answer))


def test_every_call_passes_the_gate(directory: Path) -> None:
    gate = Notebook()
    app, address = served(directory, gate)
    try:
        with Client(address, model="cheap") as client, grpc.insecure_channel(address) as channel:
            client.predict(unit_rows(2, 8))
            with pytest.raises(CallFailed, match="baseline is off"):
                client.evaluate_plaintext(unit_rows(1, 8))
            client.predict(unit_rows(client.batch_plans[0].records, 8))
            models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest())
        records = {method: count for method, _, count in gate.seen}
        assert set(records) == {
            "GetModel",
            "UploadKeys",
            "Infer",
            "InferBatch",
            "EvaluatePlaintext",
            "ListModels",
        }
        assert set(gate.knocked) == set(records)
        assert ("Infer", "cheap", 2) in gate.seen
        assert {model for method, model, _ in gate.seen if method != "ListModels"} == {"cheap"}
        assert len(gate.finished) == len(gate.seen) - 1  # the baseline's call failed

        session = Session(address, "cheap")
        session.infer()
        outcome, answer = gate.finished[-1]
        assert outcome == "ok"
        assert answer is not None
        gate.stored = answer
        again = session.stub.Infer(session.request(), timeout=5)
        assert again == inference_pb2.InferResponse.FromString(answer)

        gate.closed = True
        end = threading.Event()

        def nothing() -> Iterator[bytes]:
            end.wait(20)
            yield from ()

        with grpc.insecure_channel(address) as channel:  # before anything was sent
            call = channel.stream_unary(INFER).future(nothing())
            assert call.exception(timeout=10).code() is grpc.StatusCode.PERMISSION_DENIED
            end.set()
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status
        assert status == health_pb2.HealthCheckResponse.SERVING  # exempt
        with pytest.raises(SecureInferError, match="nobody comes in"):
            session.infer()
    finally:
        app.stop()
