"""KeyService: key material comes in chunks and is checked as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

from secure_infer.errors import CallFailed, MalformedRequest, ResourceExhausted
from secure_infer.v1 import keys_pb2
from secure_infer_server import rpc
from secure_infer_server.front import Front
from secure_infer_server.gate import Gate
from secure_infer_server.rpc import Method

SERVICE = keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name
UPLOADS = 6  # at once: each holds its bytes
UPLOAD_SECONDS = 20.0
UPLOAD_RATE = 1 << 20  # bytes a second that an upload may take at least, beyond those seconds


class KeyServicer:
    def __init__(self, front: Front, gate: Gate) -> None:
        self._front, self._gate = front, gate
        self._places = UPLOADS

    def methods(self) -> list[Method]:
        return [Method("UploadKeys", keys_pb2.UploadKeysRequest, self.upload_keys, single=False)]

    async def upload_keys(self, context: Any) -> bytes:
        first = await rpc.read(context, UPLOAD_SECONDS)
        if first is None or not first.HasField("header"):
            raise MalformedRequest("public key: expected a header on the first chunk")
        header = first.header
        with self._gate.admit(context, f"/{SERVICE}/UploadKeys", header.model) as admission:
            if not self._places:
                raise ResourceExhausted(f"{UPLOADS} uploads are under way; ask again shortly", again="shortly")
            self._places -= 1
            try:
                response = await self._upload(first, context)
            finally:
                self._places += 1
            admission.finish("ok", bytes_up=header.size)
            return response.SerializeToString()

    async def _upload(self, first: keys_pb2.UploadKeysRequest, context: Any) -> keys_pb2.UploadKeysResponse:
        header = first.header
        most = self._front.dataplane.largest_upload(header.model, header.plan_digest)
        if header.size > most:
            raise ResourceExhausted(f"public key: {header.size} bytes announced; at most {most} are taken")
        key = bytearray(first.chunk)
        allowed = UPLOAD_SECONDS + header.size / UPLOAD_RATE  # a client that stalls must not keep a place
        try:
            async with asyncio.timeout(allowed):
                while (message := await rpc.read(context, allowed)) is not None:
                    if not message.chunk or len(key) + len(message.chunk) > header.size:
                        raise MalformedRequest(
                            f"public key: {header.size} bytes announced, got an empty chunk or more than that"
                        )
                    key += message.chunk
        except TimeoutError:
            raise CallFailed(f"the upload took longer than the {allowed:.0f} s that its size is allowed") from None
        if len(key) != header.size:
            raise MalformedRequest(f"public key: {header.size} bytes announced, got {len(key)}")
        digest = await self._front.store_key(header.model, header.plan_digest, header.key_digest, bytes(key))
        return keys_pb2.UploadKeysResponse(key_digest=digest)
