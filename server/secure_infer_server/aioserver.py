"""gRPC's server for asyncio, where no caller can end it.

It decodes the name of every method that is called, and its loop ends, for all callers, at a name that is no UTF-8 (grpcio to
1.85.1). Where grpcio lets methods be registered ahead, names are compared by its core as bytes; calls of any other
method come apart from those, and are refused here unread. That takes a class of grpcio's inside: where it is not as
expected, as before 1.85, the server is grpcio's own, and `listener` puts another in its place when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import grpc
from grpc._cython import cygrpc

_INSIDE: Any = cygrpc.AioServer
_FITS = all(
    hasattr(_INSIDE, name) for name in ("_make_request_call_future", "_request_call", "add_registered_method_handlers")
)


class _Registered(_INSIDE):  # type: ignore[misc]
    """Hands out calls of registered methods alone."""

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Until the server ends; the loop that waits for this one gets nothing from it."""
        loop = asyncio.get_running_loop()
        refusing = set()
        while True:
            state = await self._request_call()
            task = loop.create_task(_refuse(state, loop))
            refusing.add(task)
            task.add_done_callback(refusing.discard)


async def _refuse(state: Any, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(Exception):  # `abort` ends by raising, and whoever called may be gone
        await cygrpc._ServicerContext(state, None, None, loop).abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def server(**settings: Any) -> grpc.aio.Server:
    """As `grpc.aio.server`; handlers are to be added by `add`."""
    if not _FITS:
        return grpc.aio.server(**settings)
    cygrpc.AioServer = _Registered
    try:
        return grpc.aio.server(**settings)
    finally:
        cygrpc.AioServer = _INSIDE


def add(server: grpc.aio.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
    """Handlers by method, of the service with that full name."""
    if _FITS:
        server.add_registered_method_handlers(service, dict(handlers))
    else:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
