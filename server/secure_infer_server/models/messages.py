"""How a model is, as a message."""

from __future__ import annotations

from secure_infer.v1 import models_pb2
from secure_infer_server.models.model import Readiness


def ready_response(found: Readiness) -> models_pb2.ModelReadyResponse:
    return models_pb2.ModelReadyResponse(
        ready=found.ready,
        digest=found.digest,
        since=int(found.since),
        reason=found.reason,
        held_back=found.held_back,
        earlier_versions=found.earlier,
    )
