"""GRPCInferenceService: the gate, and `InferenceServicer` behind it. Nothing is evaluated here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from secure_infer.errors import ModelChanged, PlanRefused, UnknownKey, UnknownModel, UnsupportedHead
from secure_infer.v1 import inference_pb2
from secure_infer_server.gate import Gate
from secure_infer_server.keys.servicer import SERVICE as KEYS
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import Offered
from secure_infer_server.open_inference import tensors
from secure_infer_server.open_inference.v2 import inference_pb2 as open_pb2
from secure_infer_server.rpc import Method
from secure_infer_server.servicer import MODELS, InferenceServicer

SERVICE = open_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
NAME, PLATFORM = "secure_infer", "secure_infer_ckks"


class OpenInferenceServicer:
    """ready: whether the server takes requests."""

    def __init__(self, inference: InferenceServicer, registry: Registry, gate: Gate, ready: Callable[[], bool]) -> None:
        self._inference, self._registry, self._gate, self._ready = inference, registry, gate, ready

    def methods(self) -> list[Method]:
        return [
            Method("ServerLive", open_pb2.ServerLiveRequest, self.server_live),
            Method("ServerReady", open_pb2.ServerReadyRequest, self.server_ready),
            Method("ModelReady", open_pb2.ModelReadyRequest, self.model_ready),
            Method("ServerMetadata", open_pb2.ServerMetadataRequest, self.server_metadata),
            Method("ModelMetadata", open_pb2.ModelMetadataRequest, self.model_metadata),
            Method("ModelInfer", open_pb2.ModelInferRequest, self.model_infer),
        ]

    async def server_live(self, request: open_pb2.ServerLiveRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/ServerLive") as admission:
            admission.finish("ok")
            return open_pb2.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, request: open_pb2.ServerReadyRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/ServerReady") as admission:
            admission.finish("ok")
            return open_pb2.ServerReadyResponse(ready=self._ready()).SerializeToString()

    async def server_metadata(self, request: open_pb2.ServerMetadataRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/ServerMetadata") as admission:
            response = open_pb2.ServerMetadataResponse(
                name=NAME, version=version("secure-infer"), extensions=[MODELS, KEYS]
            )
            admission.finish("ok")
            return response.SerializeToString()

    async def model_ready(self, request: open_pb2.ModelReadyRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/ModelReady", request.name) as admission:
            self._registry.readiness(request.name)  # a name that nothing stands for is an error, not unready
            ready = self._ready() and self._answers(request.name, request.version)
            admission.finish("ok")
            return open_pb2.ModelReadyResponse(ready=ready).SerializeToString()

    async def model_metadata(self, request: open_pb2.ModelMetadataRequest, context: Any) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/ModelMetadata", request.name) as admission:
            models = self._registry.versions(request.name)
            versions = [tensors.version_of(model.digest, digest) for model in models for digest in model.offered]
            if not versions:
                reason = models[0].no_plan_reason or "it is offered in batches alone, which InferBatch takes"
                raise UnsupportedHead(f"model {request.name!r}: no plan for single queries: {reason}")
            plan = self._offered(request.name, request.version or versions[0]).plan
            response = open_pb2.ModelMetadataResponse(
                name=request.name,
                versions=versions,
                platform=PLATFORM,
                inputs=[tensors.described(tensors.INPUT, (-1, plan.ciphertexts, plan.ciphertext_bytes))],
                outputs=[tensors.described(tensors.OUTPUT, (-1, plan.products, plan.product_bytes))],
            )
            admission.finish("ok")
            return response.SerializeToString()

    async def model_infer(self, request: open_pb2.ModelInferRequest, context: Any) -> bytes:
        asked = tensors.native(request)
        answer = await self._inference.answer(asked, context, f"/{SERVICE}/ModelInfer")
        answered = inference_pb2.InferResponse.FromString(answer)
        if answered.HasField("unknown_key"):
            digest = asked.key_digest.hex()
            raise UnknownKey(
                f"the server holds no key {digest[:12]}… of this caller's for plan {asked.plan_digest.hex()[:12]}…: upload it "
                f"with {KEYS}/UploadKeys, at this address, and send the request again",
                key_digest=digest,
            )
        return tensors.response_of(request, answered).SerializeToString()

    def _offered(self, name: str, asked: str) -> Offered:
        """A version's plan; raises UnknownModel, ModelChanged or PlanRefused unless it is served, MalformedRequest."""
        model_digest, plan_digest = tensors.digests_of(asked)
        return self._registry.version(name, model_digest).single(plan_digest)

    def _answers(self, name: str, asked: str) -> bool:
        """Whether single queries are answered, in that version where one is given; raises MalformedRequest."""
        try:
            return bool(self._offered(name, asked) if asked else self._registry.get(name).offered)
        except (UnknownModel, ModelChanged, PlanRefused):
            return False
