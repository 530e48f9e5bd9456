"""The one choke point: every RPC passes the gate before the server does anything for it.

A gate decides who may call what, how often, and what is written down about it. `OpenGate` admits everybody and records
nothing: for demos and tests on loopback.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

Context = Any
"""gRPC's servicer context, of either flavour."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call wants evaluated, as the client says it. records: that it counts as, of plan capacity; 0 where that is not
    known, and the call will be refused. queries: the ciphertexts of each, made when they are looked at; None where they are
    still to come, and identical requests cannot be told. subject: the identity whose keys or budgets an administrative call
    is about; records: that it debits."""

    model_digest: bytes = b""
    plan_digest: bytes = b""
    key_digest: bytes = b""
    records: int = 0
    request_id: bytes = b""
    queries: Callable[[], Sequence[Sequence[bytes]]] | None = None
    subject: str = ""


NOTHING = Ask()
"""Of calls that have nothing evaluated."""


class Admission(Protocol):
    """One admitted call, for as long as it is entered. Left without `finish`, or by an exception, it has failed."""

    @property
    def caller(self) -> str:
        """The identity that keys and budgets belong to; empty where nobody is told apart."""

    @property
    def stored(self) -> bytes | None:
        """The answer that this caller got for the identical request before, which it gets again; None for a new one."""

    @property
    def records(self) -> int:
        """Records that it counts as, as it stands, against a budget."""

    def begin_answer(self) -> None:
        """Before the first of several answers is sent: what follows, the call has had its answer. Again does nothing."""

    def finish(self, outcome: str, answer: bytes | None = None, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """The call ends well, and is answered after this. outcome: `ok`, or what the client has to mend. answer: as it is
        sent, to be stored. Sizes: of ciphertexts or keys, where `Ask` and answer do not say them."""

    def __enter__(self) -> Admission: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Gate(Protocol):
    """Thread-safe; blocks its caller for microseconds, but for `admit`."""

    @property
    def takes_tokens(self) -> bool:
        """Whether it tells apart callers without certificates."""

    @property
    def admits(self) -> bool:
        """False while it refuses every call, whoever comes: nothing can be recorded."""

    def serve(self, models: Mapping[str, Collection[bytes]]) -> None:
        """Digests of the versions that can be asked for, by model; before any call, and again before one more can be and after
        one no longer can. Raises SettingsError, and then nothing is changed."""

    def authenticate(self, context: Context, method: str) -> str:
        """Before a byte of the request is read: who calls, as `Admission.caller`. Raises a catalogued error for callers who may
        not call at all."""

    def admit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        """Once it is known what is asked for; raises a catalogued error. method: `/package.Service/Method`, with `:others`
        after it for what is another caller's. Now and then it waits for one transaction on a disk."""

    async def aadmit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        """As `admit`, for an event loop: what waits, waits in a thread."""


class _Admitted:
    caller = ""
    stored = None
    records = 0

    def begin_answer(self) -> None:
        """Nothing is counted."""

    def finish(self, outcome: str, answer: bytes | None = None, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Nothing is recorded."""

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class OpenGate:
    """Admits everybody, records nothing."""

    takes_tokens = False
    admits = True
    _ADMITTED = _Admitted()

    def serve(self, models: Mapping[str, Collection[bytes]]) -> None:
        """Any will do."""

    def authenticate(self, context: Context, method: str) -> str:
        """Nobody is turned away."""
        return _Admitted.caller

    def admit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        return self._ADMITTED

    async def aadmit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Admission:
        return self.admit(context, method, model, ask)
