"""A party's gRPC services: messages become halves of requests, errors become statuses."""

from __future__ import annotations

from time import monotonic

import grpc

from secure_infer.errors import MalformedRequest
from secure_infer.v1 import models_pb2, models_pb2_grpc, mpc_pb2, mpc_pb2_grpc
from secure_infer.wire import models as wire_models
from secure_infer.wire import mpc as wire_mpc
from secure_infer_server.callers.policy import canonical
from secure_infer_server.gate import Ask, Gate
from secure_infer_server.models.messages import ready_response
from secure_infer_server.mpc.endpoint import UNWATCHED, errors_answered
from secure_infer_server.mpc.halves import Costs, Half, rows_of
from secure_infer_server.mpc.models import PartyModels
from secure_infer_server.mpc.party import Party
from secure_infer_server.mpc.roles import Role, require
from secure_infer_server.observe import calls
from secure_infer_server.observe.calls import Watch

SERVICES = (
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    mpc_pb2.DESCRIPTOR.services_by_name["PartyService"].full_name,
)
_LIST, _GET, _READY = (f"/{SERVICES[0]}/{name}" for name in ("ListModels", "GetModel", "ModelReady"))
_INFER = f"/{SERVICES[1]}/InferShare"
REQUEST_ID_BYTES = 16
LONGEST_SECONDS = 60.0
"""A request is given up after that, whatever its caller's deadline."""
_REPORT_SECONDS = 0.25
"""It is given up that long before its caller's deadline, or a tenth of it, so that the caller hears why."""


class PartyModelServicer(models_pb2_grpc.ModelServiceServicer):
    """What the party serves."""

    def __init__(self, models: PartyModels, party: int, gate: Gate, watch: Watch = UNWATCHED) -> None:
        self._models, self._party, self._gate, self._watch = models, party, gate, watch

    def ListModels(  # noqa: N802
        self, request: models_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> models_pb2.ListModelsResponse:
        with errors_answered(canonical(_LIST), context, self._watch):
            self._gate.authenticate(context, _LIST)
            require(context, Role.CLIENT)
            with self._gate.admit(context, _LIST) as admission:
                specs = [wire_models.to_proto(model.spec) for model in self._models.models()]
                admission.finish("ok")
            return models_pb2.ListModelsResponse(models=specs)

    def GetModel(  # noqa: N802
        self, request: models_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> models_pb2.GetModelResponse:
        with errors_answered(canonical(_GET), context, self._watch):
            self._gate.authenticate(context, _GET)
            require(context, Role.CLIENT)
            with self._gate.admit(context, _GET, request.model) as admission:
                model = self._models.get(request.model)
                admission.finish("ok")
            return models_pb2.GetModelResponse(
                model=wire_models.to_proto(model.spec),
                program=wire_mpc.program_to_proto(model.program),
                party=self._party,
                no_plan_reason="a party evaluates secret shares; ask both parties with scheme='mpc'",
            )

    def ModelReady(  # noqa: N802
        self, request: models_pb2.ModelReadyRequest, context: grpc.ServicerContext
    ) -> models_pb2.ModelReadyResponse:
        with errors_answered(canonical(_READY), context, self._watch):
            self._gate.authenticate(context, _READY)
            require(context, Role.CLIENT)
            with self._gate.admit(context, _READY, request.model) as admission:
                response = ready_response(self._models.readiness(request.model))
                admission.finish("ok")
            return response


class PartyServicer(mpc_pb2_grpc.PartyServiceServicer):
    """Halves in, halves out."""

    def __init__(self, party: Party, gate: Gate, watch: Watch = UNWATCHED) -> None:
        self._party, self._gate, self._watch = party, gate, watch

    def InferShare(  # noqa: N802
        self, request: mpc_pb2.InferShareRequest, context: grpc.ServicerContext
    ) -> mpc_pb2.InferShareResponse:
        with errors_answered(canonical(_INFER), context, self._watch):
            started = monotonic()
            self._gate.authenticate(context, _INFER)
            # A party or the dealer posing as a client would ask for what its role must not know.
            client = require(context, Role.CLIENT)
            if len(request.request_id) != REQUEST_ID_BYTES:
                raise MalformedRequest(f"request id: expected {REQUEST_ID_BYTES} bytes, got {len(request.request_id)}")
            # No half is kept to be sent again: a request is evaluated once, with its other half.
            ask = Ask(request.model_digest, request.program_digest, b"", request.rows, request.request_id)
            with (
                self._party.halves.admitted(request.request_id, client),
                self._gate.admit(context, _INFER, request.model, ask) as admission,
            ):
                model = self._party.models.version(request.model, request.model_digest)
                model.require(request.program_digest)
                half = Half(
                    request_id=request.request_id,
                    client=admission.caller or client,
                    model=request.model,
                    model_digest=request.model_digest,
                    program_digest=request.program_digest,
                    share=rows_of(request.share, request.rows, model.program.features, model.program.most_rows),
                    deadline=started + _seconds(context.time_remaining()),
                )
                if not context.add_callback(half.abandon):
                    half.abandon()
                share, costs = self._party.answer(half)
                data = share.astype("<u8").tobytes()
                _observe(costs, len(request.share), len(data))
                admission.finish("ok", bytes_in=len(request.share), bytes_out=len(data))
            return mpc_pb2.InferShareResponse(
                request_id=request.request_id,
                model_digest=request.model_digest,
                program_digest=request.program_digest,
                share=data,
                costs=_costs(costs, monotonic() - started),
            )


def _seconds(left: float | None) -> float:
    """How long a request is worked on whose caller waits so long, or has not said."""
    longest = LONGEST_SECONDS if left is None else min(left, LONGEST_SECONDS)
    return longest - min(_REPORT_SECONDS, longest / 10)


def _observe(costs: Costs, bytes_in: int, bytes_out: int) -> None:
    call = calls.current()
    call.kind, call.bytes_in, call.bytes_out = "shares", bytes_in, bytes_out
    call.stage("queue", costs.wait)
    call.stage("link", costs.link)


def _costs(costs: Costs, total: float) -> mpc_pb2.PartyCosts:
    return mpc_pb2.PartyCosts(
        total_us=round(1e6 * total),
        wait_us=round(1e6 * costs.wait),
        link_us=round(1e6 * costs.link),
        rounds=costs.rounds,
        link_bytes=costs.link_bytes,
        correlation_bytes=costs.correlation_bytes,
    )
