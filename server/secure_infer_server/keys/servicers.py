"""KeyService for gRPC, sync and aio: the gate, errors as statuses, and time limits around `service`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

import grpc
from grpc_status import rpc_status

from secure_infer.errors import CallFailed, SecureInferError
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer.wire import status as wire_status
from secure_infer_server.faults import unexpected
from secure_infer_server.gate import Gate
from secure_infer_server.keys.service import UPLOAD_SECONDS, KeyCalls, header_of

log = logging.getLogger(__name__)

_SERVICE = keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name
_LATE = "the call was cancelled, or took too long; what came is kept, ask for its upload and go on"

Handler = TypeVar("Handler", bound=Callable[..., Any])
Response = TypeVar("Response")


def _method(name: str) -> str:
    return f"/{_SERVICE}/{name}"


def _to_status(error: SecureInferError) -> Any:
    return rpc_status.to_status(wire_status.to_status(error))


def _known(name: str, error: Exception) -> SecureInferError:
    if isinstance(error, SecureInferError):
        return error
    if isinstance(error, TimeoutError | grpc.RpcError):  # the caller went away while it was sending, or was too slow
        return CallFailed(_LATE)
    return unexpected(log, name)


def _answering(handler: Handler) -> Handler:
    """Turn errors into statuses."""

    @wraps(handler)
    def wrapped(self: Any, request: Any, context: Any) -> Any:
        try:
            return handler(self, request, context)
        except Exception as error:
            known = _known(handler.__name__, error)
        context.abort_with_status(_to_status(known))

    return wrapped  # type: ignore[return-value]


def _answering_async(handler: Handler) -> Handler:
    @wraps(handler)
    async def wrapped(self: Any, request: Any, context: Any) -> Any:
        try:
            return await handler(self, request, context)
        except Exception as error:
            known = _known(handler.__name__, error)
        await context.abort_with_status(_to_status(known))

    return wrapped  # type: ignore[return-value]


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """For a server of threads."""

    def __init__(self, calls: KeyCalls[Any], gate: Gate) -> None:
        self._calls, self._gate = calls, gate

    @_answering
    def UploadKeys(self, request: Iterator[keys_pb2.UploadKeysRequest], context: Any) -> keys_pb2.UploadKeysResponse:  # noqa: N802
        self._gate.authenticate(context, _method("UploadKeys"))
        with self._calls.place(), _limit(context, UPLOAD_SECONDS) as allow:
            first = next(request, keys_pb2.UploadKeysRequest())
            header = header_of(first)
            with self._gate.admit(context, _method("UploadKeys"), header.model) as admission:
                receiving = self._calls.receive(admission.caller, header)
                allow(receiving.seconds)
                try:
                    for message in chain([first], request):
                        receiving.take(message)
                except grpc.RpcError:
                    receiving.hold()
                    raise
                response = receiving.finish()
                admission.finish("ok", bytes=header.size)
                return response

    @_answering
    def GetUpload(self, request: keys_pb2.GetUploadRequest, context: Any) -> keys_pb2.GetUploadResponse:  # noqa: N802
        return self._unary(context, "GetUpload", lambda owner: self._calls.get_upload(owner, request))

    @_answering
    def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Any) -> keys_pb2.ListKeysResponse:  # noqa: N802
        return self._unary(context, "ListKeys", self._calls.list_keys)

    @_answering
    def DeleteKeys(self, request: keys_pb2.DeleteKeysRequest, context: Any) -> keys_pb2.DeleteKeysResponse:  # noqa: N802
        return self._unary(context, "DeleteKeys", lambda owner: self._calls.delete_keys(owner, request))

    def _unary(self, context: Any, name: str, answer: Callable[[str], Response]) -> Response:
        self._gate.authenticate(context, _method(name))
        with self._gate.admit(context, _method(name)) as admission:
            response = answer(admission.caller)
            admission.finish("ok")
            return response


class AioKeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """For a server on an event loop: what waits for a disk, or checks bytes, runs on threads."""

    def __init__(self, calls: KeyCalls[Any], gate: Gate) -> None:
        self._calls, self._gate = calls, gate

    @_answering_async
    async def UploadKeys(  # noqa: N802
        self, request: AsyncIterator[keys_pb2.UploadKeysRequest], context: Any
    ) -> keys_pb2.UploadKeysResponse:
        self._gate.authenticate(context, _method("UploadKeys"))
        with self._calls.place():
            messages = aiter(request)
            async with asyncio.timeout(UPLOAD_SECONDS):
                first = await anext(messages, keys_pb2.UploadKeysRequest())
            header = header_of(first)
            with self._gate.admit(context, _method("UploadKeys"), header.model) as admission:
                receiving = await asyncio.to_thread(self._calls.receive, admission.caller, header)
                try:
                    async with asyncio.timeout(receiving.seconds):
                        await asyncio.to_thread(receiving.take, first)
                        async for message in messages:
                            await asyncio.to_thread(receiving.take, message)
                    # A cancelled call's messages just end: what finds bytes missing here is then cancelled itself.
                    response = await asyncio.to_thread(receiving.finish)
                except (TimeoutError, asyncio.CancelledError, grpc.RpcError):
                    await asyncio.shield(asyncio.to_thread(receiving.hold))
                    raise
                admission.finish("ok", bytes=header.size)
                return response

    @_answering_async
    async def GetUpload(self, request: keys_pb2.GetUploadRequest, context: Any) -> keys_pb2.GetUploadResponse:  # noqa: N802
        return await self._unary(context, "GetUpload", lambda owner: self._calls.get_upload(owner, request))

    @_answering_async
    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Any) -> keys_pb2.ListKeysResponse:  # noqa: N802
        return await self._unary(context, "ListKeys", self._calls.list_keys)

    @_answering_async
    async def DeleteKeys(self, request: keys_pb2.DeleteKeysRequest, context: Any) -> keys_pb2.DeleteKeysResponse:  # noqa: N802
        return await self._unary(context, "DeleteKeys", lambda owner: self._calls.delete_keys(owner, request))

    async def _unary(self, context: Any, name: str, answer: Callable[[str], Response]) -> Response:
        self._gate.authenticate(context, _method(name))
        with self._gate.admit(context, _method(name)) as admission:
            response = await asyncio.to_thread(answer, admission.caller)
            admission.finish("ok")
            return response


@contextmanager
def _limit(context: Any, seconds: float) -> Iterator[Callable[[float], None]]:
    """Cancel the call when it takes longer: a client that stalls must not keep a place and a thread. What is entered with
    changes the limit, from then on."""
    timer = threading.Timer(seconds, context.cancel)

    def allow(seconds: float) -> None:
        nonlocal timer
        timer.cancel()
        timer = threading.Timer(seconds, context.cancel)
        timer.daemon = True
        timer.start()

    timer.daemon = True
    timer.start()
    try:
        yield allow
    finally:
        timer.cancel()
