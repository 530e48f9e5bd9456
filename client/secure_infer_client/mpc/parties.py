"""Two parties as their client reaches them: calls that go to both at once and stand or fall together.

Each call is made as a stream of one answer: gRPC then lets the waiting thread read it (`transport.channel`), while the
other one's is read by a helper. With its futures gRPC starts a thread of its own for every call, which takes half a
millisecond more, and a call that blocks cannot be cancelled from outside.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import grpc

from secure_infer.errors import AnswerRefused, PeerFailure, SecureInferError
from secure_infer.v1 import models_pb2, mpc_pb2
from secure_infer_client import transport

CAUSE = 0.5
"""Seconds that the other party has to say what is wrong with it, once one says that it was lost."""

_SERVICES = "/secure_infer.v1"


class Parties:
    """targets, channels: one a party, in the same order; which of them is party 0 does not matter."""

    def __init__(self, targets: Sequence[str], channels: Sequence[grpc.Channel]) -> None:
        self.targets = tuple(targets)
        self._models = [_method(c, "ModelService/GetModel", models_pb2.GetModelResponse) for c in channels]
        self._shares = [_method(c, "PartyService/InferShare", mpc_pb2.InferShareResponse) for c in channels]
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="party")

    def models(self, request: models_pb2.GetModelRequest, timeout: float) -> list[models_pb2.GetModelResponse]:
        """What each says of a model, within `timeout` seconds."""
        return self._both(self._models, [request, request], timeout)

    def infer(self, requests: Sequence[mpc_pb2.InferShareRequest], timeout: float) -> list[mpc_pb2.InferShareResponse]:
        """Each party's answer to its half. A half is sent once, whatever happens."""
        return self._both(self._shares, requests, timeout)

    def close(self) -> None:
        self._helper.shutdown(wait=False)

    def _both(self, methods: Sequence[Any], requests: Sequence[Any], timeout: float) -> list[Any]:
        """Both answers; the first failure ends the other call, and is raised as the catalogued error it is."""
        calls: list[Any] = []
        try:
            for method, request in zip(methods, requests, strict=True):
                calls.append(method(request, timeout=timeout))
            exchange = _Exchange(calls, self.targets, timeout)
            other = self._helper.submit(exchange.read, 1)
            answers = [exchange.read(0), other.result()]
            if exchange.problems:
                raise exchange.cause
            return answers
        finally:
            for call in calls:
                call.cancel()


class _Exchange:
    """Two calls under way. problems: what went wrong, in the order of arrival."""

    def __init__(self, calls: Sequence[Any], targets: Sequence[str], timeout: float) -> None:
        self._calls, self._targets, self._timeout = calls, targets, timeout
        self._ended = (threading.Event(), threading.Event())
        self.problems: list[SecureInferError] = []

    @property
    def cause(self) -> SecureInferError:
        """The first problem that is not a consequence of the other party's."""
        causes = [problem for problem in self.problems if not isinstance(problem, PeerFailure)]
        return [*causes, *self.problems][0]

    def read(self, number: int) -> Any:
        """One call's answer, or None when there is none; then the other call is ended too."""
        call = self._calls[number]
        try:
            answers = list(islice(call, 2))
            if len(answers) == 1:
                return answers[0]
            problem: SecureInferError = AnswerRefused(
                f"{self._targets[number]}: expected one answer, got {'several' if answers else 'none'}"
            )
        except grpc.RpcError as error:
            if self.problems and call.code() is grpc.StatusCode.CANCELLED:
                return None  # ended by the other
            problem = self._named(number, error)
        finally:
            self._ended[number].set()
        self.problems.append(problem)
        if isinstance(problem, PeerFailure):
            self._ended[1 - number].wait(CAUSE)
        self._calls[1 - number].cancel()
        return None

    def _named(self, number: int, error: grpc.RpcError) -> SecureInferError:
        """The call's error, which says whose it is."""
        target = self._targets[number]
        problem = transport.translate(target, self._timeout, error)
        if target in problem.message:
            return problem
        return type(problem)(f"party at {target}: {problem.message}", **problem.details)


def _method(channel: grpc.Channel, name: str, answer: Any) -> Any:
    return channel.unary_stream(
        f"{_SERVICES}.{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
