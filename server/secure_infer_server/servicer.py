"""ModelService and InferenceService: messages become calls of the front, answers become messages. No decisions are made
here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from secure_infer.ckks.calibration import unit_costs
from secure_infer.errors import CallFailed, MalformedRequest
from secure_infer.v1 import inference_pb2, models_pb2, plans_pb2
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer_server import rpc
from secure_infer_server.batches import Answer, BatchTimes, Event, KeyNotHeld, Progress
from secure_infer_server.budgets import single_capacity
from secure_infer_server.dataplane import Dataplane, Inferred
from secure_infer_server.front import Front
from secure_infer_server.gate import Ask, Gate
from secure_infer_server.models.messages import ready_response
from secure_infer_server.rpc import Method

MODELS = models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
MAX_ID = 64
HEADER_SECONDS = 5.0  # to a batch's first message, which is small
STALL_SECONDS = 30.0  # between two messages of a batch


class ModelServicer:
    def __init__(self, dataplane: Dataplane, gate: Gate) -> None:
        self._dataplane, self._gate = dataplane, gate

    def methods(self) -> list[Method]:
        return [
            Method("ListModels", models_pb2.ListModelsRequest, self.list_models),
            Method("GetModel", models_pb2.GetModelRequest, self.get_model),
            Method("ModelReady", models_pb2.ModelReadyRequest, self.model_ready),
        ]

    async def list_models(self, request: models_pb2.ListModelsRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{MODELS}/ListModels") as admission:
            specs = [wire_models.to_proto(model.spec) for model in self._dataplane.registry.models()]
            admission.finish("ok")
            return models_pb2.ListModelsResponse(models=specs).SerializeToString()

    async def get_model(self, request: models_pb2.GetModelRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{MODELS}/GetModel", request.model) as admission:
            model, offers = self._dataplane.offer(request.model, wire_plans.privacy_from_proto(request.privacy))
            response = models_pb2.GetModelResponse(
                model=wire_models.to_proto(model.spec),
                offers=[plans_pb2.Offer(plan=wire_plans.to_proto(o.plan), server_seconds=o.seconds) for o in offers],
                no_plan_reason=model.no_plan_reason,
                unit_costs=unit_costs().to_json(),
            )
            admission.finish("ok")
            return response.SerializeToString()

    async def model_ready(self, request: models_pb2.ModelReadyRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{MODELS}/ModelReady", request.model) as admission:
            response = ready_response(self._dataplane.registry.readiness(request.model))
            admission.finish("ok")
            return response.SerializeToString()


class InferenceServicer:
    def __init__(self, front: Front, gate: Gate, *, plaintext_baseline: bool) -> None:
        self._front, self._gate, self._plaintext_baseline = front, gate, plaintext_baseline

    def methods(self) -> list[Method]:
        return [
            Method("Infer", inference_pb2.InferRequest, self.infer, door=self._front.require_room),
            Method("InferBatch", inference_pb2.InferBatchRequest, self.infer_batch, single=False, streams=True),
            Method("EvaluatePlaintext", inference_pb2.EvaluatePlaintextRequest, self.evaluate_plaintext),
        ]

    async def infer(self, request: inference_pb2.InferRequest, context: Any) -> bytes:
        return await self.answer(request, context, f"/{INFERENCE}/Infer")

    async def answer(self, request: inference_pb2.InferRequest, context: Any, method: str) -> bytes:
        """An InferResponse; method: what the gate knows the call by. Whatever a request came in, its answer is stored and given
        again in this form."""
        _check_id(request.request_id)
        ask = Ask(
            request.model_digest,
            request.plan_digest,
            request.key_digest,
            single_capacity(len(request.queries)),
            request.request_id,
            lambda: [query.ciphertexts for query in request.queries],
        )
        caller = self._gate.authenticate(context, method)
        self._front.require_room(caller, request.model, request.plan_digest, len(request.queries))
        with await self._gate.aadmit(context, method, request.model, ask) as admission:
            if admission.stored is not None:
                admission.finish("ok")
                return admission.stored
            inferred = await self._front.infer(
                admission.caller,
                request.model,
                request.model_digest,
                request.plan_digest,
                request.key_digest,
                [query.ciphertexts for query in request.queries],
                rpc.deadline(context),
            )
            if inferred is None:
                unknown = inference_pb2.InferResponse(
                    request_id=request.request_id,
                    model_digest=request.model_digest,
                    unknown_key=inference_pb2.UnknownKey(key_digest=request.key_digest),
                )
                admission.finish("unknown_key")
                return unknown.SerializeToString()
            answer = _response(request.request_id, inferred).SerializeToString()
            admission.finish("ok", answer)
            return answer

    async def infer_batch(self, context: Any) -> None:
        first = await rpc.read(context, HEADER_SECONDS)
        if first is None or not first.HasField("header") or first.ciphertexts:
            raise MalformedRequest("batch: expected a header, and nothing else, in the first message")
        header = first.header
        _check_id(header.request_id)
        capacity = self._front.batch_capacity(header.model, header.model_digest, header.plan_digest)
        ask = Ask(header.model_digest, header.plan_digest, header.key_digest, capacity, header.request_id)
        with await self._gate.aadmit(context, f"/{INFERENCE}/InferBatch", header.model, ask) as admission:
            received = Received(context)
            events = self._front.batch(
                admission.caller,
                header.model,
                header.model_digest,
                header.plan_digest,
                header.key_digest,
                header.records,
                received.ciphertexts(),
            )
            outcome, sent = "ok", 0
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, KeyNotHeld):
                        outcome = "unknown_key"
                    elif isinstance(event, Answer):
                        admission.begin_answer()
                        sent += len(event.product)
                    await rpc.write(context, _batch_response(header, event), STALL_SECONDS)
            admission.finish(outcome, bytes_in=received.bytes, bytes_out=sent)

    async def evaluate_plaintext(self, request: inference_pb2.EvaluatePlaintextRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{INFERENCE}/EvaluatePlaintext", request.model) as admission:
            if not self._plaintext_baseline:
                raise CallFailed(
                    "the plaintext baseline is off; it exists for benchmarks: serve with --plaintext-baseline"
                )
            logits = self._front.dataplane.evaluate_plaintext(request.model, request.rows)
            admission.finish("ok")
            return inference_pb2.EvaluatePlaintextResponse(logits=logits).SerializeToString()


def _check_id(request_id: bytes) -> None:
    """It is echoed in every answer, so that a long one would cost more than it did to send."""
    if len(request_id) > MAX_ID:
        raise MalformedRequest(f"request id: expected at most {MAX_ID} bytes, got {len(request_id)}")


def _response(request_id: bytes, inferred: Inferred) -> inference_pb2.InferResponse:
    times = inferred.times
    return inference_pb2.InferResponse(
        request_id=request_id,
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


class Received:
    """A batch's ciphertexts as they come. bytes: of those that came."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.bytes = 0

    async def ciphertexts(self) -> AsyncIterator[list[bytes]]:
        while (message := await rpc.read(self._context, STALL_SECONDS)) is not None:
            if message.HasField("header"):
                raise MalformedRequest("batch: expected one header, in the first message")
            found = list(message.ciphertexts)
            self.bytes += sum(map(len, found))
            yield found


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
