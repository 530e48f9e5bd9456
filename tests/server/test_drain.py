"""How a server ends: calls under way have their answers, new ones are refused so that they may be sent elsewhere, a second
signal waits for nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from secure_infer.errors import SettingsError
from secure_infer.v1 import keys_pb2, models_pb2, models_pb2_grpc
from secure_infer_client.local_server import LocalServer
from secure_infer_server.commands import drain
from secure_infer_server.models.registry import Registry
from secure_infer_server.mpc.endpoint import Endpoint, Listening
from secure_infer_server.settings import Settings
from server.keys.raw import Tenant
from shared import linear_head, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE = 30.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    linear_head(8, 3).save(path / "m.head")
    return path


@pytest.fixture
def serving(directory: Path) -> Iterator[Callable[..., LocalServer]]:
    started = []

    def start(*options: str) -> LocalServer:
        started.append(LocalServer(directory, "--workers", "1", "--batches", "0", *options))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.stop()


class Upload:
    """A call that is under way until `finish`."""

    def __init__(self, directory: Path, address: str) -> None:
        model = Registry.load(Settings(directory, "127.0.0.1", 0, insecure=True, batches=0)).get("m")
        self._go, self.channel = threading.Event(), grpc.insecure_channel(address)
        self.tenant = Tenant(address, self.channel, model)
        self.call = self.tenant.keys.UploadKeys.future(self._messages(), timeout=PATIENCE)
        self.tenant.held()  # on the same connection: the upload has reached the server before this is answered

    def _messages(self) -> Iterator[keys_pb2.UploadKeysRequest]:
        (whole,) = self.tenant.messages(self.tenant.data)
        half = len(whole.chunk) // 2
        yield keys_pb2.UploadKeysRequest(header=whole.header, chunk=whole.chunk[:half])
        self._go.wait(PATIENCE)
        yield keys_pb2.UploadKeysRequest(chunk=whole.chunk[half:])

    def finish(self) -> Any:
        self._go.set()
        return self.call.result(PATIENCE)


class Watched:
    """What a balancer that watches health is told, for as long as it listens."""

    def __init__(self, address: str) -> None:
        self.told: list[int] = []
        self._channel = grpc.insecure_channel(address)
        self._call = health_pb2_grpc.HealthStub(self._channel).Watch(health_pb2.HealthCheckRequest())
        threading.Thread(target=self._listen, daemon=True).start()
        until(lambda: self.told == [SERVING])

    def _listen(self) -> None:
        try:
            for answer in self._call:
                self.told.append(answer.status)
        except grpc.RpcError:
            pass


def told(address: str) -> grpc.StatusCode:
    """What a new client is told."""
    with grpc.insecure_channel(address) as channel:
        try:
            models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest(), timeout=5)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_calls_under_way_end_and_new_ones_go_elsewhere(serving: Callable[..., LocalServer], directory: Path) -> None:
    server = serving("--drain", "25")
    balancer, upload = Watched(server.address), Upload(directory, server.address)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: balancer.told[-1] == NOT_SERVING)
    until(lambda: told(server.address) is not grpc.StatusCode.OK)
    assert told(server.address) is grpc.StatusCode.UNAVAILABLE
    assert server.process.poll() is None
    assert upload.finish().key_digest == upload.tenant.digest
    assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log()
    for said in (
        f"serves at {server.address}, without TLS",
        "under way have 25 seconds",
        "drained: all calls have ended",
    ):
        assert said in server.log()


def test_the_time_to_drain_is_bounded(serving: Callable[..., LocalServer], directory: Path) -> None:
    server = serving("--drain", "0.2")
    upload = Upload(directory, server.address)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    with pytest.raises(grpc.RpcError) as caught:
        upload.finish()
    assert "drained: up to 1 calls took longer and were ended" in server.log()
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_a_second_signal_ends_at_once(serving: Callable[..., LocalServer], directory: Path) -> None:
    server = serving("--drain", "3600")
    balancer, upload = Watched(server.address), Upload(directory, server.address)
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    server.process.send_signal(signal.SIGTERM)
    until(lambda: balancer.told[-1] == NOT_SERVING)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == -signal.SIGTERM
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    with pytest.raises(grpc.RpcError):
        upload.finish()


def test_parties_and_dealers_are_not_ready_while_nothing_can_be_recorded() -> None:
    admits = [True]
    endpoint = Endpoint(
        Listening("127.0.0.1", 0, None), (), threads=4, calls=8, limit=1 << 20, admits=lambda: admits[0]
    )
    balancer = Watched(endpoint.start())
    serving = threading.Thread(target=endpoint.wait, daemon=True)
    serving.start()
    for now in (False, True):
        admits[0] = now
        until(lambda: balancer.told[-1] == (SERVING if admits[0] else NOT_SERVING))
        assert endpoint.ready() is now
    endpoint._ending._asked = True
    serving.join(PATIENCE)
    endpoint.stop()


def test_parties_and_dealers_end_with_the_last_call() -> None:
    """Whoever watches health does not keep them."""
    endpoint = Endpoint(Listening("127.0.0.1", 0, None, drain=3600.0), (), threads=4, calls=8, limit=1 << 20)
    balancer = Watched(endpoint.start())
    endpoint.underway.begin(None, None)
    ending = threading.Thread(target=endpoint.stop, daemon=True)
    ending.start()
    until(lambda: balancer.told[-1] == NOT_SERVING)
    assert ending.is_alive()
    endpoint.underway.end(None)
    ending.join(PATIENCE)
    assert not ending.is_alive()


def test_seconds_are_seconds() -> None:
    for wrong in (-1.0, 3601.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="--drain"):
            drain.seconds(SimpleNamespace(drain=wrong))  # type: ignore[arg-type]
