"""gRPC in and out: messages become calls of the dataplane, errors become statuses. No decisions are made here."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from typing import Any, TypeVar

import grpc
from grpc_status import rpc_status

from secure_infer.ckks.calibration import unit_costs
from secure_infer.errors import (
    CallFailed,
    InternalFault,
    MalformedRequest,
    ResourceExhausted,
    SecureInferError,
    SettingsError,
)
from secure_infer.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    plans_pb2,
)
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer.wire import status as wire_status
from secure_infer_server.batches import Answer, Batches, BatchTimes, Event, KeyNotHeld, Progress
from secure_infer_server.dataplane import Dataplane

log = logging.getLogger(__name__)

UPLOADS = 6  # at once; the other threads stay free for queries
MAX_ID = 64
UPLOAD_SECONDS = 20.0
UPLOAD_RATE = 1 << 20  # bytes a second that an upload may take at least, beyond those seconds
BATCH_CALLS = 8  # at once at most: with the uploads, fewer than the server's threads
SPARE_BATCH_CALLS = 2  # beyond the places: calls that are refused, or told to upload their key first
HEADER_SECONDS = 5.0  # to a batch's first message, which is small
STALL_SECONDS = 30.0  # between two messages of a batch

Handler = TypeVar("Handler", bound=Callable[..., Any])


def answering(handler: Handler) -> Handler:
    """Turn catalogued errors into statuses, and anything else into an id in the log: its text never leaves."""

    @wraps(handler)
    def wrapped(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        with _errors_answered(handler.__name__, context):
            return handler(self, request, context)

    return wrapped  # type: ignore[return-value]


@contextmanager
def _errors_answered(name: str, context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
        return
    except SecureInferError as error:
        known = error
    except grpc.RpcError:  # the caller went away while it was sending
        known = CallFailed("the call was cancelled, or took too long")
    except Exception:
        fault = secrets.token_hex(8)
        log.exception("fault %s in %s", fault, name)
        known = InternalFault(f"the server failed; its log has the details under id {fault}", id=fault)
    context.abort_with_status(rpc_status.to_status(wire_status.to_status(known)))


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane

    @answering
    def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:  # noqa: N802
        registry = self._dataplane.registry
        specs = [wire_models.to_proto(registry.get(name).spec) for name in registry.names()]
        return models_pb2.ListModelsResponse(models=specs)

    @answering
    def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:  # noqa: N802
        model, offers = self._dataplane.offer(request.model, wire_plans.privacy_from_proto(request.privacy))
        return models_pb2.GetModelResponse(
            model=wire_models.to_proto(model.spec),
            offers=[plans_pb2.Offer(plan=wire_plans.to_proto(o.plan), server_seconds=o.seconds) for o in offers],
            no_plan_reason=model.no_plan_reason,
            unit_costs=unit_costs().to_json(),
        )


class _Limit:
    """Ends an upload that takes longer than `UPLOAD_SECONDS` and what was allowed besides."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._timer = self._started(UPLOAD_SECONDS)

    def _started(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._cancel)
        timer.daemon = True
        timer.start()
        return timer

    def allow(self, seconds: float) -> None:
        """From now on, `seconds` more than the least."""
        self.end()
        self._timer = self._started(UPLOAD_SECONDS + seconds)

    def end(self) -> None:
        self._timer.cancel()


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._places = threading.BoundedSemaphore(UPLOADS)

    @answering
    def UploadKeys(self, request: Iterator[keys_pb2.UploadKeysRequest], context: Any) -> keys_pb2.UploadKeysResponse:  # noqa: N802
        if not self._places.acquire(blocking=False):
            raise ResourceExhausted(f"{UPLOADS} uploads are under way; ask again shortly", again="shortly")
        # A client that stalls must not keep a place and a thread.
        limit = _Limit(context.cancel)
        try:
            return self._upload(request, limit)
        finally:
            limit.end()
            self._places.release()

    def _upload(self, request: Iterator[keys_pb2.UploadKeysRequest], limit: _Limit) -> keys_pb2.UploadKeysResponse:
        first = next(request, None)
        if first is None or not first.HasField("header"):
            raise MalformedRequest("public key: expected a header on the first chunk")
        header = first.header
        most = self._dataplane.largest_upload(header.model, header.plan_digest)
        if header.size > most:
            raise ResourceExhausted(f"public key: {header.size} bytes announced; at most {most} are taken")
        limit.allow(header.size / UPLOAD_RATE)
        key = bytearray(first.chunk)
        for message in request:
            if not message.chunk or len(key) + len(message.chunk) > header.size:
                raise MalformedRequest(
                    f"public key: {header.size} bytes announced, got an empty chunk or more than that"
                )
            key += message.chunk
        if len(key) != header.size:
            raise MalformedRequest(f"public key: {header.size} bytes announced, got {len(key)}")
        digest = self._dataplane.store_key(header.model, header.plan_digest, header.key_digest, bytes(key))
        return keys_pb2.UploadKeysResponse(key_digest=digest)


def _check_id(request_id: bytes) -> None:
    """It is echoed in every answer, so that a long one would cost more than it did to send."""
    if len(request_id) > MAX_ID:
        raise MalformedRequest(f"request id: expected at most {MAX_ID} bytes, got {len(request_id)}")


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, dataplane: Dataplane, batches: Batches, *, plaintext_baseline: bool) -> None:
        self._dataplane, self._batches = dataplane, batches
        self._plaintext_baseline = plaintext_baseline
        calls = batches.places + SPARE_BATCH_CALLS
        if calls > BATCH_CALLS:
            raise SettingsError(
                f"batches: expected at most {BATCH_CALLS - SPARE_BATCH_CALLS} at once, got {batches.places}; "
                "more would leave no thread to single queries"
            )
        self._batch_calls = threading.BoundedSemaphore(calls)

    @answering
    def Infer(self, request: inference_pb2.InferRequest, context: grpc.ServicerContext) -> inference_pb2.InferResponse:  # noqa: N802
        _check_id(request.request_id)
        inferred = self._dataplane.infer(
            request.model,
            request.model_digest,
            request.plan_digest,
            request.key_digest,
            [query.ciphertexts for query in request.queries],
            abandoned=lambda: not context.is_active(),
        )
        if inferred is None:
            return inference_pb2.InferResponse(
                request_id=request.request_id,
                model_digest=request.model_digest,
                unknown_key=inference_pb2.UnknownKey(key_digest=request.key_digest),
            )
        times = inferred.times
        return inference_pb2.InferResponse(
            request_id=request.request_id,
            model_digest=inferred.model_digest,
            answers=inference_pb2.Answers(
                answers=[inference_pb2.Answer(products=products) for products in inferred.answers],
                times=inference_pb2.ServerTimes(
                    load_us=round(1e6 * times.load),
                    evaluate_us=round(1e6 * times.evaluate),
                    blind_us=round(1e6 * times.blind),
                    total_us=round(1e6 * times.total),
                    blinds_ready=times.blinds_ready,
                    blinds_inline=times.blinds_inline,
                ),
            ),
        )

    def InferBatch(  # noqa: N802
        self, request: Iterator[inference_pb2.InferBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.InferBatchResponse]:
        with _errors_answered("InferBatch", context):
            # Before anything is waited for: a call that sends nothing has a thread as well.
            if not self._batch_calls.acquire(blocking=False):
                raise ResourceExhausted(
                    "as many batches are under way as this server takes; ask again later, or send single queries",
                    again="later",
                )
            try:
                yield from self._batch(request, context)
            finally:
                self._batch_calls.release()

    def _batch(
        self, request: Iterator[inference_pb2.InferBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[inference_pb2.InferBatchResponse]:
        with _Stalls(context.cancel, HEADER_SECONDS):
            first = next(request, None)
        if first is None or not first.HasField("header") or first.ciphertexts:
            raise MalformedRequest("batch: expected a header, and nothing else, in the first message")
        header = first.header
        _check_id(header.request_id)
        stalls = _Stalls(context.cancel, STALL_SECONDS)
        events = self._batches.evaluate(
            header.model,
            header.model_digest,
            header.plan_digest,
            header.key_digest,
            header.records,
            _ciphertexts(request, stalls),
            abandoned=lambda: not context.is_active(),
        )
        with closing(events):
            for event in events:
                with stalls:
                    yield _batch_response(header, event)

    @answering
    def EvaluatePlaintext(  # noqa: N802
        self, request: inference_pb2.EvaluatePlaintextRequest, context: Any
    ) -> inference_pb2.EvaluatePlaintextResponse:
        if not self._plaintext_baseline:
            raise CallFailed("the plaintext baseline is off; it exists for benchmarks: serve with --plaintext-baseline")
        logits = self._dataplane.evaluate_plaintext(request.model, request.rows)
        return inference_pb2.EvaluatePlaintextResponse(logits=logits)


class _Stalls:
    """Ends a batch whose client neither sends nor reads: while it is entered, a timer of that many seconds runs."""

    def __init__(self, cancel: Callable[[], object], seconds: float) -> None:
        self._cancel, self._seconds = cancel, seconds

    def __enter__(self) -> None:
        self._timer = threading.Timer(self._seconds, self._cancel)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _ciphertexts(request: Iterator[inference_pb2.InferBatchRequest], stalls: _Stalls) -> Iterator[list[bytes]]:
    while True:
        with stalls:
            message = next(request, None)
        if message is None:
            return
        if message.HasField("header"):
            raise MalformedRequest("batch: expected one header, in the first message")
        yield list(message.ciphertexts)


def _batch_response(header: inference_pb2.BatchHeader, event: Event) -> inference_pb2.InferBatchResponse:
    response = inference_pb2.InferBatchResponse(request_id=header.request_id, model_digest=header.model_digest)
    match event:
        case KeyNotHeld():
            response.unknown_key.key_digest = header.key_digest
        case Progress():
            response.progress.done = event.done
        case Answer():
            response.answer.product, response.answer.done = event.product, event.done
        case BatchTimes():
            response.times.load_us = round(1e6 * event.load)
            response.times.evaluate_us = round(1e6 * event.evaluate)
            response.times.blind_us = round(1e6 * event.blind)
            response.times.total_us = round(1e6 * (event.load + event.evaluate))
            response.times.blinds_inline = event.blinds
    return response
