"""Which failures are asked again, how often, within which time, and with what."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from client.test_client import Unavailable
from secure_infer.errors import (
    AnswerRefused,
    BudgetExhausted,
    CallFailed,
    ResourceExhausted,
    SecureInferError,
    ServerUnavailable,
)
from secure_infer_client import Client, retries
from shared import unit_rows


class Service:
    """Fails as told, one failure a call, then answers. left: seconds that each call was given."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.left: list[float] = []

    def __call__(self, left: float) -> str:
        self.left.append(left)
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


BUSY = ResourceExhausted("busy", again="shortly")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are not slept; they are listed."""
    pauses: list[float] = []
    monkeypatch.setattr(retries, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize(
    "failure", [BUSY, Unavailable(), ServerUnavailable("starting")], ids=["busy", "status", "error"]
)
def test_passing_failures_are_asked_again(failure: Exception) -> None:
    service, counted = Service(failure, failure), []
    assert retries.call("t", 30.0, service, lambda: counted.append(1)) == "answer"
    assert (len(service.left), len(counted)) == (3, 2)
    assert 30.0 >= service.left[0] > service.left[1] > service.left[2] > 29.0


@pytest.mark.parametrize(
    "failure",
    [AnswerRefused("range"), CallFailed("no"), BudgetExhausted("spent"), ResourceExhausted("too large")],
    ids=lambda failure: failure.reason,
)
def test_other_failures_are_not(failure: SecureInferError) -> None:
    service = Service(failure)
    with pytest.raises(type(failure)):
        retries.call("t", 30.0, service)
    assert len(service.left) == 1


def test_a_server_out_of_reach_is_given_up_soon(quick: list[float]) -> None:
    service = Service(*[Unavailable() for _ in range(20)])
    with pytest.raises(ServerUnavailable):
        retries.call("t", 30.0, service)
    assert len(service.left) == retries.UNREACHABLE
    assert 0.08 < sum(quick) < 1


def test_pauses_double_and_are_cut_at_random(quick: list[float]) -> None:
    retries.call("t", 30.0, Service(*[BUSY] * 12))
    for number, pause in enumerate(quick):
        whole = min(retries.FIRST_PAUSE * 2**number, retries.LONGEST_PAUSE)
        assert whole / 2 <= pause <= whole
    assert len({round(pause / 1e-6) for pause in quick[-6:]}) > 1


def test_the_deadline_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(retries, "monotonic", lambda: clock[0])
    monkeypatch.setattr(retries, "sleep", lambda pause: clock.__setitem__(0, clock[0] + pause))
    service = Service(*[BUSY] * 1000)
    with pytest.raises(ResourceExhausted):
        retries.call("t", 5.0, service)
    assert 4.0 <= clock[0] < 5.0
    assert min(service.left) > 0


class Sent:
    """A stub whose calls fail at first; what was sent is kept."""

    def __init__(self, stub: Any, name: str, failures: list[Exception]) -> None:
        self._stub, self._name, self._failures = stub, name, failures
        self.messages: list[bytes] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._stub, name)
        if name != self._name:
            return method

        def call(request: Any, timeout: float) -> Any:
            self.messages.append(request.SerializeToString())
            if self._failures:
                raise self._failures.pop(0)
            return method(request, timeout=timeout)

        return call


def test_the_identical_query_is_sent_again(address: str) -> None:
    with Client(address, model="small") as client:
        client.predict(unit_rows(1, 8))
        session: Any = client._session
        sent = session._inference = Sent(session._inference, "Infer", [Unavailable(), BUSY, BUSY])
        client.predict(unit_rows(3, 8))
        assert len(sent.messages) == 4
        assert len(set(sent.messages)) == 1  # the same id, the same ciphertexts
        assert client.last_call.stats.retries == 3
        client.predict(unit_rows(1, 8))
        assert client.last_call.stats.retries == 0


def test_a_refused_answer_is_not_asked_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from secure_infer_client import exchange as module

    with Client(address, model="small") as client:
        client.predict(unit_rows(1, 8))
        session: Any = client._session
        sent = session._inference = Sent(session._inference, "Infer", [])

        def refuse(*_: object) -> None:
            raise AnswerRefused("range", again="shortly")  # whatever it says

        monkeypatch.setattr(module, "read_answer", refuse)
        with pytest.raises(AnswerRefused):
            client.predict(unit_rows(1, 8))
        assert len(sent.messages) == 1


def test_grpc_itself_repeats_nothing(address: str) -> None:
    """It would not be counted, nor would it know what may be asked again."""

    class Failing(grpc.GenericRpcHandler):  # type: ignore[misc]
        calls = 0

        def service(self, details: Any) -> Any:
            def fail(request: bytes, context: Any) -> bytes:
                Failing.calls += 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "again?")
                return b""

            return grpc.unary_unary_rpc_method_handler(fail)

    from concurrent.futures import ThreadPoolExecutor

    from secure_infer_client import transport

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Failing(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = transport.channel(
        f"127.0.0.1:{port}", root_certificates=None, private_key=None, certificate_chain=None, token=None
    )
    started = time.monotonic()
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/secure_infer.v1.InferenceService/Infer")(b"", timeout=10)
    channel.close()
    server.stop(None).wait()
    assert Failing.calls == 1
    assert time.monotonic() - started < 10
