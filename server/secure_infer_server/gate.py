"""The one choke point: every RPC passes the gate before the server does anything for it.

A gate decides who may call what, how often, and what is written down about it. `OpenGate` admits everybody and records
nothing: for demos and tests on loopback.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

Context = Any
"""gRPC's servicer context, of either flavour."""


class Admission(Protocol):
    """One admitted call, for as long as it is entered. Left without `finish`, or by an exception, it has failed."""

    @property
    def caller(self) -> str:
        """The identity that keys and budgets belong to; empty where nobody is told apart."""

    @property
    def stored(self) -> bytes | None:
        """The answer that this caller got for the identical request before, which it gets again; None for a new one."""

    def finish(self, outcome: str, answer: bytes | None = None, **sizes: int) -> None:
        """The call ends well. outcome: `ok`, or what the client has to mend. answer: as it is sent, to be stored."""

    def __enter__(self) -> Admission: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Gate(Protocol):
    """Thread-safe; blocks its caller for microseconds at most."""

    def authenticate(self, context: Context, method: str) -> None:
        """Before a byte of the request is read; raises a catalogued error for callers who may not call at all."""

    def admit(
        self, context: Context, method: str, model: str | None = None, records: int = 0, request_id: bytes = b""
    ) -> Admission:
        """Once it is known what is asked for; raises a catalogued error. method: `/package.Service/Method`."""


class _Admitted:
    caller = ""
    stored = None

    def finish(self, outcome: str, answer: bytes | None = None, **sizes: int) -> None:
        """Nothing is recorded."""

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class OpenGate:
    """Admits everybody, records nothing."""

    _ADMITTED = _Admitted()

    def authenticate(self, context: Context, method: str) -> None:
        """Nobody is turned away."""

    def admit(
        self, context: Context, method: str, model: str | None = None, records: int = 0, request_id: bytes = b""
    ) -> Admission:
        return self._ADMITTED
