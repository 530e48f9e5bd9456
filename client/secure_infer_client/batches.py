"""One batch on the wire: encrypted features stream up while they are made, progress and answers stream down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import grpc

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.errors import AnswerRefused, CallFailed
from secure_infer.v1 import inference_pb2, inference_pb2_grpc

MESSAGE_BYTES = 1 << 20
"""Ciphertexts of a message, about; one at least."""

Progress = Callable[[float], None]
"""Called with the part that is done, from 0 to 1."""


def nothing(done: float) -> None:
    """Progress that nobody wants to know."""


@dataclass(frozen=True)
class BatchAnswers:
    """What came back. answers: one a logit. times: the server's. bytes are message sizes; encrypt: seconds of this side."""

    answers: list[bytes]
    times: inference_pb2.ServerTimes
    bytes_up: int
    bytes_down: int
    encrypt: float


class _Requests:
    """The stream up. gRPC asks for its messages on a thread of its own, so features are encrypted there."""

    def __init__(self, header: inference_pb2.BatchHeader, ciphertexts: Iterator[bytes]) -> None:
        self._header: inference_pb2.BatchHeader | None = header
        self._ciphertexts = ciphertexts
        self._lock = threading.Lock()
        self._stopped = False
        self.problem: Exception | None = None
        self.bytes, self.seconds = 0, 0.0

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> inference_pb2.InferBatchRequest:
        started = perf_counter()
        with self._lock:
            if self._stopped:
                raise StopIteration
            try:
                message = self._next()
            except StopIteration:
                raise
            except Exception as problem:  # it belongs to the caller; here it would only be logged
                self.problem = problem
                raise StopIteration from None
            self.bytes += message.ByteSize()
            self.seconds += perf_counter() - started
            return message

    def _next(self) -> inference_pb2.InferBatchRequest:
        if self._header is not None:
            header, self._header = self._header, None
            return inference_pb2.InferBatchRequest(header=header)
        message = [next(self._ciphertexts)]
        while sum(map(len, message)) + len(message[0]) <= MESSAGE_BYTES:
            following = next(self._ciphertexts, None)
            if following is None:
                break
            message.append(following)
        return inference_pb2.InferBatchRequest(ciphertexts=message)

    def stop(self) -> None:
        """Nothing is encrypted after this returns, so the key may be used elsewhere or destroyed."""
        with self._lock:
            self._stopped = True


def infer_batch(
    stub: inference_pb2_grpc.InferenceServiceStub,
    plan: BatchPlan,
    header: inference_pb2.BatchHeader,
    ciphertexts: Iterator[bytes],
    timeout: float,
    progress: Progress,
) -> BatchAnswers | None:
    """Send a batch and take its answers in; None when the server does not hold the key.

    ciphertexts: one a feature, in order; drawn as they are sent. Raises AnswerRefused as soon as anything that comes back
    is not what the plan says, grpc.RpcError when the call fails.
    """
    requests = _Requests(header, ciphertexts)
    responses = stub.InferBatch(requests, timeout=timeout)
    answers: list[bytes] = []
    times: inference_pb2.ServerTimes | None = None
    received, reached = 0, 0.0
    try:
        for response in responses:
            received += response.ByteSize()
            if (response.request_id, response.model_digest) != (header.request_id, header.model_digest):
                raise AnswerRefused("answer: it is bound to another request or model")
            if times is not None:
                raise AnswerRefused("answer: the server went on after its last message")
            match response.WhichOneof("event"):
                case "unknown_key" if not answers:
                    return None
                case "progress":
                    done = response.progress.done
                case "answer" if len(answers) < plan.products:
                    if len(response.answer.product) != plan.product_bytes:
                        raise AnswerRefused(
                            f"answer: expected {plan.product_bytes} bytes, got {len(response.answer.product)}"
                        )
                    answers.append(response.answer.product)
                    done = response.answer.done
                case "times" if len(answers) == plan.products:
                    times, done = response.times, 1.0
                case _:
                    raise AnswerRefused("answer: a message that does not belong there")
            if done > reached:  # nothing else, NaN neither, moves it
                reached = min(done, 1.0)
                progress(reached)
    except grpc.RpcError as error:
        if not answers:
            raise
        # Not for whoever makes passing failures good: the batch was evaluated, and another one may be charged for.
        raise CallFailed(
            f"batch: it broke off after {len(answers)} of {plan.products} answers ({error.code().name}); ask again"
        ) from None
    finally:
        requests.stop()
        responses.cancel()
        if requests.problem is not None:
            raise requests.problem
    if times is None:
        raise AnswerRefused(f"answer: the stream ended after {len(answers)} of {plan.products}")
    return BatchAnswers(answers, times, requests.bytes, received, requests.seconds)
