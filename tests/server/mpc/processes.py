"""A dealer and two parties as real processes over mutual TLS, and a client that knows nothing but the protocol's messages."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from secure_infer.errors import SecureInferError
from secure_infer.heads import Head, ReLU
from secure_infer.mpc import sharefile
from secure_infer.mpc.correlations import MOD
from secure_infer.mpc.program import Answers, Largest, Program
from secure_infer.mpc.ring import decode, encode
from secure_infer.mpc.sharing import split
from secure_infer.v1 import models_pb2, models_pb2_grpc, mpc_pb2, mpc_pb2_grpc
from secure_infer.wire import mpc as wire_mpc
from secure_infer.wire import status as wire_status
from secure_infer_server.commands import certs
from shared import hidden_head, linear_head, unit_rows

FEATURES = 24
WIDTHS = (FEATURES, 12, 5)
ENDS = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
}
"""How a call may end when a process dies or stalls; anything else is a fault."""


class Process:
    """One `secure-infer` process. `ready` is its ready line; `kill` and `start` again, on the same addresses."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.arguments, self.log_file = arguments, log
        self.start()

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "secure_infer.cli", *self.arguments]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log()
        self.ready: dict[str, Any] = json.loads(line)
        self.arguments = tuple(self._settled())

    def _settled(self) -> Iterator[str]:
        """The arguments with the addresses that were picked."""
        picked = {"--listen": self.ready["address"], "--peer": self.ready.get("peer")}
        for before, argument in zip(("", *self.arguments), self.arguments, strict=False):
            yield str(picked.get(before) or argument)

    @property
    def address(self) -> str:
        return str(self.ready["address"])

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block, the process does not run."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        return self._process.returncode


@dataclass(frozen=True)
class Answer:
    """What came of one call."""

    status: str
    reason: str
    message: str
    seconds: float
    response: mpc_pb2.InferShareResponse | None = None


class Client:
    """Sends halves. files: of its certificate, key and authority; None: without TLS."""

    def __init__(self, addresses: Sequence[str], files: tuple[Path, Path, Path] | None) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
        if files is None:
            self._channels = [grpc.insecure_channel(address, options) for address in addresses]
        else:
            authority, key, chain = (file.read_bytes() for file in files)
            credentials = grpc.ssl_channel_credentials(authority, key, chain)
            self._channels = [grpc.secure_channel(address, credentials, options) for address in addresses]
        self.models = [models_pb2_grpc.ModelServiceStub(channel) for channel in self._channels]
        self.parties = [mpc_pb2_grpc.PartyServiceStub(channel) for channel in self._channels]
        self.health = [health_pb2_grpc.HealthStub(channel) for channel in self._channels]
        self._programs: dict[tuple[str, int], tuple[bytes, Program]] = {}

    def program(self, model: str, party: int = 0) -> tuple[bytes, Program]:
        """(model digest, program) as a party serves it."""
        key = (model, party)
        if key not in self._programs:
            found = self.models[party].GetModel(models_pb2.GetModelRequest(model=model), timeout=10)
            self._programs[key] = found.model.digest, wire_mpc.program_from_proto(found.program)
        return self._programs[key]

    def requests(self, model: str, x: np.ndarray, party: int = 0) -> list[mpc_pb2.InferShareRequest]:
        """Both halves of a query, under a fresh id; party: whose description of the model is used."""
        digest, program = self.program(model, party)
        common = {"request_id": secrets.token_bytes(16), "model": model, "model_digest": digest, "rows": len(x)}
        common["program_digest"] = bytes.fromhex(program.digest)
        return [
            mpc_pb2.InferShareRequest(**common, share=half.tobytes()) for half in split(encode(x, program.fraction))
        ]

    def send(self, halves: Mapping[int, mpc_pb2.InferShareRequest], seconds: float = 5.0) -> dict[int, Answer]:
        """Send a half to each party that is named; wait for all."""
        started = time.monotonic()
        calls = {party: self.parties[party].InferShare.future(half, timeout=seconds) for party, half in halves.items()}
        return {party: outcome(call.result, started) for party, call in calls.items()}

    def evaluate(self, model: str, x: np.ndarray, seconds: float = 5.0) -> np.ndarray | dict[int, Answer]:
        """Logits (B, K) or labels (B,); what went wrong at which party otherwise. The first failure ends the other call."""
        started = time.monotonic()
        halves = self.requests(model, x)
        calls = [stub.InferShare.future(half, timeout=seconds) for stub, half in zip(self.parties, halves, strict=True)]
        for call, other in (calls, calls[::-1]):
            call.add_done_callback(partial(_cancel_after_failure, other))
        answers = {party: outcome(call.result, started) for party, call in enumerate(calls)}
        if any(answer.response is None for answer in answers.values()):
            return answers
        return self.joined(model, halves[0].request_id, answers)

    def joined(self, model: str, request_id: bytes, answers: Mapping[int, Answer]) -> np.ndarray:
        digest, program = self.program(model)
        shares = []
        for party in (0, 1):
            response = answers[party].response
            assert response is not None
            assert (response.request_id, response.model_digest) == (request_id, digest)
            assert response.program_digest.hex() == program.digest
            shares.append(np.frombuffer(response.share, "<u8").reshape(-1, program.outputs))
        if isinstance(program.steps[-1], Largest):
            won = MOD.join(*shares) == 0
            assert (won.sum(axis=1) == 1).all()
            return won.argmax(axis=1)
        return decode(shares[0] + shares[1], program.answer_fraction)

    def listed(self, party: int, seconds: float = 2.0) -> list[str]:
        return [m.name for m in self.models[party].ListModels(models_pb2.ListModelsRequest(), timeout=seconds).models]

    def serving(self, party: int, seconds: float = 2.0) -> bool:
        found = self.health[party].Check(health_pb2.HealthCheckRequest(), timeout=seconds).status
        return bool(found == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


def _cancel_after_failure(other: Any, call: Any) -> None:
    if call.code() is not grpc.StatusCode.OK:
        other.cancel()


def outcome(result: Callable[[], Any], started: float) -> Answer:
    """What a call's `result` gives."""
    try:
        response = result()
    except grpc.FutureCancelledError:
        return Answer("CANCELLED", "", "", time.monotonic() - started)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        known: SecureInferError | None = None if status is None else wire_status.from_status(status)
        reason = "" if known is None else known.reason
        return Answer(error.code().name, reason, error.details(), time.monotonic() - started)
    return Answer("OK", "", "", time.monotonic() - started, response)


class Deployment:
    """A dealer, parties 0 and 1, and their certificates. options: of both parties, or of one of them.

    heads: by name, with weights at both parties. shared: names of those that are served as "NAME-shared", too, with a share
    of the weights at each, and labels: as "NAME-label". `expected` is what they answer in the clear.
    """

    def __init__(
        self,
        directory: Path,
        heads: Mapping[str, Head],
        shared: Sequence[str] = (),
        labels: Sequence[str] = (),
        options: tuple[Sequence[str], Sequence[str]] = ((), ()),
        insecure: bool = False,
    ) -> None:
        self.directory, self.insecure = directory, insecure
        self.certificates = {} if insecure else certs.make(directory / "certs", ["127.0.0.1"], "ward-7", 2)
        self.folders = [directory / f"models-{party}" for party in (0, 1)]
        for folder in self.folders:
            folder.mkdir()
            for name, head in heads.items():
                head.save(folder / f"{name}.head")
        self.heads = dict(heads)
        for name in shared:
            sharefile.share_model(heads[name], self.folders, f"{name}-shared")
            self.heads[f"{name}-shared"] = heads[name]
        for name in labels:
            sharefile.share_model(heads[name], self.folders, f"{name}-label", answers=Answers.LABEL)
            self.heads[f"{name}-label"] = heads[name]
        self.processes: list[Process] = []
        self._clients: list[Client] = []
        try:
            self.dealer = self._process("dealer", "--listen", "127.0.0.1:0", *self.security("dealer"))
            self.parties = [self.party(0, "127.0.0.1:0", options[0])]
            self.parties.append(self.party(1, str(self.parties[0].ready["peer"]), options[1]))
        except BaseException:
            self.end()
            raise

    def party(self, number: int, peer: str, options: Sequence[str] = ()) -> Process:
        return self._process(
            f"party{number}",
            *("--id", str(number), "--models", str(self.folders[number]), "--peer", peer),
            *("--dealer", self.dealer.address, "--listen", "127.0.0.1:0", *self.security(f"party{number}"), *options),
        )

    def security(self, name: str) -> list[str]:
        if self.insecure:
            return ["--insecure"]
        authority, key, chain = map(str, self.files(name))
        return ["--tls-cert", chain, "--tls-key", key, "--client-ca", authority]

    def files(self, name: str) -> tuple[Path, Path, Path]:
        return self.certificates["ca.pem"], self.certificates[f"{name}.key"], self.certificates[f"{name}.pem"]

    def client(self, name: str = "client") -> Client:
        made = Client([party.address for party in self.parties], None if self.insecure else self.files(name))
        self._clients.append(made)
        return made

    def _process(self, name: str, *arguments: str) -> Process:
        started = Process(self.directory / f"{name}.log", name.rstrip("01"), *arguments)
        self.processes.append(started)
        return started

    def right(self, client: Client, model: str, x: np.ndarray, found: np.ndarray) -> bool:
        """Whether an answer is that of the head in the clear, within the program's bound."""
        expected = self.heads[model].evaluate(x)
        _, program = client.program(model)
        if found.ndim == 2:
            return bool(np.abs(found - expected).max() <= program.error_bound)
        best = expected.max(axis=1) - expected[np.arange(len(x)), found]
        return bool((best <= 2 * program.error_bound).all())

    def works(self, client: Client, model: str, rows: int = 1, seconds: float = 5.0) -> bool:
        """One request; its answer, if one comes, has to be right."""
        x = unit_rows(rows, FEATURES, secrets.randbelow(1 << 30))
        found = client.evaluate(model, x, seconds)
        if isinstance(found, dict):
            return False
        assert self.right(client, model, x, found)
        return True

    def recovers(self, client: Client, models: Sequence[str], seconds: float = 20.0) -> float:
        """Ask until every model answers again; returns the seconds that it took."""
        started = time.monotonic()
        for model in models:
            while not self.works(client, model, seconds=2.0):
                assert time.monotonic() - started < seconds, self.logs()
                time.sleep(0.05)
        return time.monotonic() - started

    def logs(self) -> str:
        return "".join(f"--- {process.log_file.name}\n{process.log()}" for process in self.processes)

    def end(self) -> None:
        for client in self._clients:
            client.close()
        for process in reversed(self.processes):
            process.end()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Load:
    """Threads that ask one model after the other until the block ends; every answer is checked, every failure kept."""

    def __init__(self, deployment: Deployment, models: Sequence[str], threads: int, seconds: float = 3.0) -> None:
        self._deployment, self._models, self._seconds = deployment, models, seconds
        self._client = deployment.client()
        self._ending = threading.Event()
        self.answered = 0
        self.failures: list[Answer] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(k,), daemon=True) for k in range(threads)]

    def _ask(self, number: int) -> None:
        turn = number
        while not self._ending.is_set():
            model, rows = self._models[turn % len(self._models)], (1, 2, 7)[turn % 3]
            turn += 1
            x = unit_rows(rows, FEATURES, secrets.randbelow(1 << 30))
            found = self._client.evaluate(model, x, self._seconds)
            if isinstance(found, dict):
                self.failures += found.values()
                time.sleep(0.02)
            elif self._deployment.right(self._client, model, x, found):
                self.answered += 1
            else:
                self.wrong.append(model)

    def __enter__(self) -> Load:
        for model in self._models:
            self._client.program(model)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(self._seconds + 10)

    def require_sound(self) -> None:
        """Every call ended in time, with a status that says what is the matter, and no answer was wrong."""
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self.wrong
        bad = [a for a in self.failures if a.status not in {*ENDS, "OK"} or a.seconds > self._seconds + 1]
        assert not bad, bad[:3]
        nameless = [a for a in self.failures if a.status in ("ABORTED", "FAILED_PRECONDITION") and not a.reason]
        assert not nameless, nameless[:3]


def small_heads() -> dict[str, Head]:
    """A linear head, one with squares, one with ReLUs, for FEATURES features."""
    return {
        "linear": linear_head(FEATURES, 5),
        "square": hidden_head(WIDTHS),
        "relu": hidden_head(WIDTHS, ReLU()),
    }
