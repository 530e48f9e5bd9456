"""AdminService behind the gate, on an event loop and, at parties, on threads. What waits for a disk runs on threads either way.

The audit log says whose keys or budgets a call was about, as a hash, and which model, where it names them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from secure_infer_server.admin.service import METHODS, SERVICE, AdminCalls
from secure_infer_server.callers.policy import canonical
from secure_infer_server.gate import NOTHING, Ask, Gate
from secure_infer_server.mpc.endpoint import errors_answered
from secure_infer_server.observe.calls import Watch
from secure_infer_server.rpc import Method


class AdminServicer:
    """Of a server on an event loop."""

    def __init__(self, calls: AdminCalls, gate: Gate) -> None:
        self._calls, self._gate = calls, gate

    def methods(self) -> list[Method]:
        return [Method(name, request, self._answering(name, call)) for name, (request, call) in METHODS.items()]

    def _answering(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        path = f"/{SERVICE}/{name}"

        async def answer(request: Message, context: Any) -> bytes:
            self._calls.books.require_second_factor(path)
            with await self._gate.aadmit(context, path, _model(request), _subject(request)) as admission:
                data: bytes = (await asyncio.to_thread(call, self._calls, request)).SerializeToString()
                admission.finish("ok", bytes_out=len(data))
                return data

        return answer


def handlers(calls: AdminCalls, gate: Gate, watch: Watch) -> dict[str, grpc.RpcMethodHandler]:
    """By method, of a server on threads. watch: is told of every call."""

    def answering(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        path = f"/{SERVICE}/{name}"

        def answer(request: Message, context: grpc.ServicerContext) -> Any:
            with errors_answered(canonical(path), context, watch):
                gate.authenticate(context, path)
                calls.books.require_second_factor(path)
                with gate.admit(context, path, _model(request), _subject(request)) as admission:
                    response = call(calls, request)
                    admission.finish("ok", bytes_out=response.ByteSize())
                return response

        return answer

    return {
        name: grpc.unary_unary_rpc_method_handler(
            answering(name, call), request.FromString, lambda response: response.SerializeToString()
        )
        for name, (request, call) in METHODS.items()
    }


def _model(request: Message) -> str | None:
    return getattr(request, "model", "") or None


def _subject(request: Message) -> Ask:
    subject = getattr(request, "owner", "") or getattr(request, "identity", "")
    return Ask(subject=subject, records=getattr(request, "records", 0)) if subject else NOTHING
