"""A gate that notes on each call what is asked for, and passes everything on. So models have one name for observers: that of a
model which is served, whatever a client wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType

from secure_infer_server.gate import NOTHING, Admission, Ask, Context, Gate
from secure_infer_server.observe import calls


class NotingGate:
    """A `Gate` around another."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._served: Mapping[str, Collection[bytes]] = {}

    @property
    def takes_tokens(self) -> bool:
        return self._gate.takes_tokens

    @property
    def admits(self) -> bool:
        return self._gate.admits

    def serve(self, models: Mapping[str, Collection[bytes]]) -> None:
        self._gate.serve(models)
        self._served = models

    def authenticate(self, context: Context, method: str) -> str:
        return self._gate.authenticate(context, method)

    def admit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        call = self._noted(model, ask)
        return _Noted(self._gate.admit(context, method, model, ask), call)

    async def aadmit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        call = self._noted(model, ask)
        return _Noted(await self._gate.aadmit(context, method, model, ask), call)

    def _noted(self, model: str | None, ask: Ask) -> calls.Call:
        call = calls.current()
        if model in self._served:
            call.model = model or ""
        call.request_id = ask.request_id
        return call


class _Noted:
    """An `Admission`: another one, of a call that learns how it ended."""

    __slots__ = ("_admission", "_call", "begin_answer", "caller", "stored")

    def __init__(self, admission: Admission, call: calls.Call) -> None:
        self._admission, self._call = admission, call
        self.caller, self.stored = admission.caller, admission.stored
        self.begin_answer = admission.begin_answer

    @property
    def records(self) -> int:
        return self._admission.records

    def finish(self, outcome: str, answer: bytes | None = None, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        self._admission.finish(outcome, answer, bytes_in=bytes_in, bytes_out=bytes_out)
        if outcome != calls.OK:
            self._call.outcome = outcome

    def __enter__(self) -> Admission:
        self._admission.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.__exit__(kind, error, trace)
        self._call.records += self._admission.records
