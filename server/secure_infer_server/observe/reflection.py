"""gRPC's server reflection, behind the gate like any method: whom no rule allows it does not see what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from secure_infer_server import rpc
from secure_infer_server.gate import Gate
from secure_infer_server.rpc import Method

SERVICE = reflection.SERVICE_NAME
METHOD = "ServerReflectionInfo"
STALL_SECONDS = 30.0


class Reflection:
    """services: full names of all that are served, this one among them."""

    def __init__(self, services: Iterable[str], gate: Gate) -> None:
        self._servicer, self._gate = reflection.aio.ReflectionServicer(services), gate

    def methods(self) -> list[Method]:
        return [Method(METHOD, reflection_pb2.ServerReflectionRequest, self.info, single=False, streams=True)]

    async def info(self, context: Any) -> None:
        with await self._gate.aadmit(context, f"/{SERVICE}/{METHOD}") as admission:
            async for response in self._servicer.ServerReflectionInfo(_requests(context), context):
                await rpc.write(context, response, STALL_SECONDS)
            admission.finish("ok")


async def _requests(context: Any) -> AsyncIterator[Any]:
    while (request := await rpc.read(context, STALL_SECONDS)) is not None:
        yield request
