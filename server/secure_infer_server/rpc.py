"""gRPC methods on an event loop: callers that send nothing cost a few kilobytes and are turned away in time; catalogued
errors become statuses, and anything else an id in the log.

A unary method is served as a stream of one message, which is the same on the wire: the gate then sees a caller before its
message is read, and a message that does not come can be given up on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from secure_infer.errors import CallFailed, MalformedRequest, SecureInferError
from secure_infer.wire import status as wire_status
from secure_infer_server.callers.policy import canonical
from secure_infer_server.faults import failed, unexpected
from secure_infer_server.gate import Gate
from secure_infer_server.observe import calls
from secure_infer_server.observe.calls import Watch

log = logging.getLogger(__name__)

MESSAGE_SECONDS = 30.0  # to the only message of a call, all of it
Context = Any


class TooSlow(CallFailed):
    """A client that was waited for."""


@dataclass(frozen=True)
class Method:
    """door: called with who calls, before the message is read; raises what turns a caller away. handle: called with (the
    message, context) where single, else with the context. It returns the response's bytes, or None where it wrote its
    responses itself."""

    name: str
    request: type[Message]
    handle: Callable[..., Awaitable[bytes | None]]
    single: bool = True
    streams: bool = False
    door: Callable[[str], None] = lambda _: None


class Sweeper:
    """Cancels tasks that are waited for too long, looking now and then: a timer a call would slow every call down."""

    INTERVAL = 0.5

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._swept: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """The current task, while entered, for about that long; raises TooSlow then."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("a sweeper needs a task to cancel")
        if self._sweeping is not loop:
            self._sweeping = loop
            loop.call_later(self.INTERVAL, self._sweep, loop)
        self._waiting[task] = loop.time() + seconds
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._swept:
                raise
            task.uncancel()
            raise TooSlow(f"the call's message did not come within {seconds:g} s") from None
        finally:
            del self._waiting[task]
            self._swept.discard(task)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, end in self._waiting.items():
            if now > end and task not in self._swept:
                self._swept.add(task)
                task.cancel()
        loop.call_later(self.INTERVAL, self._sweep, loop)


def handlers(service: str, gate: Gate, methods: list[Method], watch: Watch | None = None) -> grpc.GenericRpcHandler:
    """As `by_method`, for a server of grpc.aio's own."""
    return grpc.method_handlers_generic_handler(service, by_method(service, gate, methods, watch))


def by_method(
    service: str, gate: Gate, methods: list[Method], watch: Watch | None = None
) -> dict[str, grpc.RpcMethodHandler]:
    """The methods of a service, each behind the gate's first look. watch: is told of every call."""
    sweeper, watch = Sweeper(), watch or Watch()
    found = {}
    for method in methods:
        path = f"/{service}/{method.name}"
        make = grpc.stream_stream_rpc_method_handler if method.streams else grpc.stream_unary_rpc_method_handler
        found[method.name] = make(_served(path, gate, method, sweeper, watch), _parser(method.request), None)
    return found


def _parser(request: type[Message]) -> Callable[[bytes], Message]:
    def parse(data: bytes) -> Message:
        calls.current().bytes_in += len(data)
        try:
            return request.FromString(data)
        except DecodeError:
            raise MalformedRequest(f"expected a message of type {request.DESCRIPTOR.name}, got other bytes") from None

    return parse


def _served(
    path: str, gate: Gate, method: Method, sweeper: Sweeper, watch: Watch
) -> Callable[..., Awaitable[bytes | None]]:
    name = canonical(path)

    async def answer(context: Context) -> bytes | None:
        caller = gate.authenticate(context, path)
        if not method.single:
            return await method.handle(context)
        method.door(caller)
        with sweeper.within(MESSAGE_SECONDS):
            message = await context.read()
        if message is grpc.aio.EOF:
            raise MalformedRequest("expected a message, got none")
        return await method.handle(message, context)

    async def outcome(context: Context) -> bytes | SecureInferError | None:
        try:
            return await answer(context)
        except SecureInferError as error:
            failed(log, method.name, error)
            return error
        except asyncio.CancelledError:
            raise
        except (grpc.RpcError, grpc.aio.BaseError, grpc.aio.UsageError):  # the caller went away while it was sending
            return CallFailed("the call was cancelled, or took too long")
        except Exception:
            return unexpected(log, method.name)

    async def serve(_: Any, context: Context) -> bytes | None:
        call, failure = watch.begin(name, context), calls.CANCELLED
        try:
            found = await outcome(context)
            failure = found.reason if isinstance(found, SecureInferError) else ""
            call.bytes_out += len(found) if isinstance(found, bytes) else 0
        finally:
            watch.end(call, failure)
        if not isinstance(found, SecureInferError):
            return found
        status = rpc_status.to_status(wire_status.to_status(found))
        # Not `abort`, which raises: a server that turns many callers away has no time for that.
        context.set_code(status.code)
        context.set_details(status.details)
        context.set_trailing_metadata(status.trailing_metadata)
        return b""

    return serve


async def read(context: Context, seconds: float) -> Any:
    """The next message of a stream, or None at its end; raises TooSlow when it does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            message = await context.read()
    except TimeoutError:
        raise TooSlow(f"a message did not come within {seconds:g} s") from None
    return None if message is grpc.aio.EOF else message


async def write(context: Context, message: Message, seconds: float) -> None:
    """Send a message; raises TooSlow when the caller does not take it in time."""
    try:
        async with asyncio.timeout(seconds):
            data = message.SerializeToString()
            calls.current().bytes_out += len(data)
            await context.write(data)
    except TimeoutError:
        raise TooSlow(f"a message was not taken within {seconds:g} s") from None


def deadline(context: Context) -> float | None:
    """When the caller stops waiting, of the loop's clock; None: never."""
    left = context.time_remaining()
    return None if left is None else asyncio.get_running_loop().time() + left
