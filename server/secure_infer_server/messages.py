"""Servicers of generated code, their messages read with care: bytes that are no message are refused by the catalogue, where
gRPC itself would answer INTERNAL, or UNKNOWN with the exception's text, and write a line into the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from secure_infer.errors import MalformedRequest
from secure_infer.wire import status as wire_status
from secure_infer_server import aioserver


class Careful:
    """What `add_..._to_server` takes in place of a server. asynchronous: one that `aioserver` made; its servicers take no
    streams here."""

    def __init__(self, server: Any, *, asynchronous: bool = False) -> None:
        self._server, self._asynchronous = server, asynchronous

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: the same handlers come by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        careful = {name: self._careful(handler) for name, handler in handlers.items()}
        if self._asynchronous:
            aioserver.add(self._server, service, careful)
        else:
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, careful),))

    def _careful(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        guard = _asynchronous if self._asynchronous else _streamed if handler.request_streaming else _single
        kind = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
        behaviour = guard(getattr(handler, "_".join(kind)))
        make = getattr(grpc, f"{'_'.join(kind)}_rpc_method_handler")
        return make(behaviour, _reader(handler.request_deserializer), handler.response_serializer)


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns the error in place of the message: what is raised here, gRPC answers."""

    def careful(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return MalformedRequest("expected a message of this method, got other bytes")

    return careful


def _single(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def careful(request: Any, context: grpc.ServicerContext) -> Any:
        if isinstance(request, MalformedRequest):
            context.abort_with_status(rpc_status.to_status(wire_status.to_status(request)))
        return behaviour(request, context)

    return careful


def _streamed(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The servicer meets the error when it asks for the message."""

    def messages(requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            if isinstance(request, MalformedRequest):
                raise request
            yield request

    return lambda requests, context: behaviour(messages(requests), context)


def _asynchronous(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def careful(request: Any, context: Any) -> Any:
        if isinstance(request, MalformedRequest):
            status = rpc_status.to_status(wire_status.to_status(request))
            await context.abort(status.code, status.details, status.trailing_metadata)
        return await behaviour(request, context)

    return careful
