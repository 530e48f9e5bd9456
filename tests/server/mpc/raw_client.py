"""A client of two parties that knows nothing but the protocol's messages: it can send what the SDK never would."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from secure_infer.errors import SecureInferError
from secure_infer.mpc.correlations import MOD
from secure_infer.mpc.program import Largest, Program
from secure_infer.mpc.ring import decode, encode
from secure_infer.mpc.sharing import split
from secure_infer.v1 import models_pb2, models_pb2_grpc, mpc_pb2, mpc_pb2_grpc
from secure_infer.wire import mpc as wire_mpc
from secure_infer.wire import status as wire_status


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
