"""KeyService on an event loop: the gate, and time limits, around `service`. What waits for a disk, or checks bytes, runs on
threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from secure_infer.errors import CallFailed
from secure_infer.v1 import keys_pb2
from secure_infer_server import rpc
from secure_infer_server.gate import Gate
from secure_infer_server.keys import service
from secure_infer_server.keys.names import owner_of
from secure_infer_server.keys.service import KeyCalls, header_of
from secure_infer_server.rpc import Method

SERVICE = keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name
_BROKEN = (TimeoutError, rpc.TooSlow, grpc.RpcError, grpc.aio.BaseError, grpc.aio.UsageError)


class KeyServicer:
    def __init__(self, calls: KeyCalls[Any], gate: Gate) -> None:
        self._calls, self._gate = calls, gate

    def methods(self) -> list[Method]:
        return [
            Method("UploadKeys", keys_pb2.UploadKeysRequest, self.upload_keys, single=False),
            Method("GetUpload", keys_pb2.GetUploadRequest, self.get_upload),
            Method("ListKeys", keys_pb2.ListKeysRequest, self.list_keys),
            Method("DeleteKeys", keys_pb2.DeleteKeysRequest, self.delete_keys),
        ]

    async def upload_keys(self, context: Any) -> bytes:
        first = await rpc.read(context, service.UPLOAD_SECONDS)
        header = header_of(first or keys_pb2.UploadKeysRequest())
        with await self._gate.aadmit(context, f"/{SERVICE}/UploadKeys", header.model) as admission, self._calls.place():
            receiving = await asyncio.to_thread(self._calls.receive, owner_of(admission.caller), header)
            try:
                async with asyncio.timeout(receiving.seconds):
                    await asyncio.to_thread(receiving.take, first)
                    while (message := await rpc.read(context, receiving.seconds)) is not None:
                        await asyncio.to_thread(receiving.take, message)
                # A cancelled call's messages just end: what finds bytes missing here is then cancelled itself.
                response = await asyncio.to_thread(receiving.finish)
            except (*_BROKEN, asyncio.CancelledError) as broken:
                await asyncio.shield(asyncio.to_thread(receiving.hold))
                if isinstance(broken, asyncio.CancelledError):
                    raise
                raise CallFailed(
                    "the call was cancelled, or took too long; what came is kept, ask for its upload and go on"
                ) from None
            admission.finish("ok", bytes_in=header.size)
            return response.SerializeToString()

    async def get_upload(self, request: keys_pb2.GetUploadRequest, context: Any) -> bytes:
        return await self._answer(context, "GetUpload", lambda owner: self._calls.get_upload(owner, request))

    async def list_keys(self, request: keys_pb2.ListKeysRequest, context: Any) -> bytes:
        return await self._answer(context, "ListKeys", self._calls.list_keys)

    async def delete_keys(self, request: keys_pb2.DeleteKeysRequest, context: Any) -> bytes:
        return await self._answer(context, "DeleteKeys", lambda owner: self._calls.delete_keys(owner, request))

    async def _answer(self, context: Any, name: str, answer: Callable[[str], Message]) -> bytes:
        with await self._gate.aadmit(context, f"/{SERVICE}/{name}") as admission:
            response = await asyncio.to_thread(answer, owner_of(admission.caller))
            admission.finish("ok")
            return response.SerializeToString()
