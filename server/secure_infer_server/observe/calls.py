"""One call as observers see it: names of the server's own, sizes, seconds, digests; there is no place for anything else.

    call = watch.begin("InferenceService/Infer", context)     # rpc
    calls.current().stage("evaluate", 0.0004)                  # whoever works for it, on whatever thread or task
    watch.end(call, "")

Log lines written meanwhile carry the call's ids (`logs`).
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from time import perf_counter, time_ns
from typing import Any, Protocol

Context = Any
"""gRPC's servicer context, of either flavour."""

OK, CANCELLED = "ok", "CANCELLED"
"""Outcomes besides reasons of errors; a method may have its own for what a client has to mend, like `unknown_key`."""

STAGES = ("queue", "link", "load", "evaluate", "blind")
"""Seconds of a call. queue: until a worker began, or at a party until there were correlations, a lane and the other half. link:
at a party, waiting for the other one's messages. load: bytes checked and made ciphertexts. blind: making floods that were not
ready, a part of evaluate."""


class Call:
    """One call. method: "Service/Method". model: the name of one that is served, or empty. kind: of its plan. records: counted
    against a budget. request: SHA-256 of the client's request id, as in the audit log. fault: the id of an internal one.
    trace: of the trace that it is a part of, 32 digits of hex, or empty. Bytes are those of messages."""

    __slots__ = (
        *("blinds_inline", "blinds_ready", "bytes_in", "bytes_out", "evaluated", "fault", "kind", "method", "model"),
        *("outcome", "records", "request_id", "seconds", "span", "stages", "started", "started_ns", "trace"),
    )

    def __init__(self, method: str) -> None:
        self.method = method
        self.model = self.kind = self.fault = self.trace = self.outcome = ""
        self.request_id = b""
        self.records = self.bytes_in = self.bytes_out = self.blinds_ready = self.blinds_inline = 0
        self.stages: dict[str, float] = {}
        self.span: Any = None
        self.started, self.started_ns = perf_counter(), time_ns()
        self.evaluated = self.seconds = 0.0

    @property
    def answered(self) -> bool:
        """Whether it ended in no error: the reasons of those are in capitals."""
        return not self.outcome.isupper()

    @property
    def request(self) -> str:
        return hashlib.sha256(self.request_id).hexdigest() if self.request_id else ""

    def stage(self, name: str, seconds: float) -> None:
        """That long in one of `STAGES`."""
        self.stages[name] = seconds

    def evaluation(self, kind: str, load: float, evaluate: float, blind: float, ready: int, inline: int) -> None:
        """It is evaluated, on a plan of that kind. ready, inline: blinds by where they came from."""
        self.kind, self.blinds_ready, self.blinds_inline = kind, ready, inline
        stages = self.stages
        stages["load"], stages["evaluate"] = load, evaluate
        if ready or inline:
            stages["blind"] = blind
        self.evaluated = perf_counter()


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current() -> Call:
    """The call under way in this task or thread; outside of one, a call of no method that nobody is told of."""
    return _current.get() or Call("")


class Observer(Protocol):
    """Thread-safe; takes microseconds, waits for nothing and raises nothing."""

    def begin(self, call: Call, context: Context) -> None:
        """Before the caller is known."""

    def end(self, call: Call) -> None:
        """It is over; `outcome` and `seconds` are set."""


class Watch:
    """Whom calls are told to."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def begin(self, method: str, context: Context) -> Call:
        """A call that is the current one from now on."""
        call = Call(method)
        _current.set(call)
        for observer in self._observers:
            observer.begin(call, context)
        return call

    def end(self, call: Call, failure: str) -> None:
        """failure: the reason of the error that it ended in; empty: it was answered."""
        call.outcome = failure or call.outcome or OK
        call.seconds = perf_counter() - call.started
        for observer in self._observers:
            observer.end(call)
        _current.set(None)
