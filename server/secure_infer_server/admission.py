"""One admitted call of `GuardedGate`: what it is charged, and the entry it leaves in the audit log."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any

from secure_infer.errors import InternalFault, SecureInferError
from secure_infer_server.audit.event import Event
from secure_infer_server.audit.log import AuditLog
from secure_infer_server.budgets import Budgets, Charge
from secure_infer_server.callers.policy import canonical
from secure_infer_server.gate import NOTHING, Ask

UNAUTHENTICATED = "unauthenticated"
BEGUN = "begun"
"""Outcome of the entry that stands before a batch's first answer; another one follows when the batch is over."""

_LONGEST_WHO = 256
_DIGEST_BYTES = 32


class Records:
    """Writes entries. audit None: none. served: names of the models that are served."""

    def __init__(self, audit: AuditLog | None, served: Container[str]) -> None:
        self._audit, self._served = audit, served

    def write(self, who: str, method: str, outcome: str, model: str | None = None, **fields: Any) -> None:
        """Raises AuditUnavailable. fields: of `Event`."""
        if self._audit is None:
            return
        name = "" if model is None or model not in self._served else model
        self._audit.record(Event(who=_loggable(who), method=_method(method), outcome=outcome, model=name, **fields))

    def refused(self, who: str, method: str, error: BaseException, model: str | None = None, **fields: Any) -> None:
        """A call that failed. The log being full or broken is no reason to tell the caller something else."""
        with suppress(SecureInferError):
            self.write(who, method, _outcome(error), model, **fields)


class Call:
    """An `Admission`."""

    __slots__ = (
        *("_ask", "_budgeted", "_bytes_in", "_identity", "_method", "_model", "_over", "_records", "_spent"),
        *("charge", "second_factor"),
    )

    def __init__(
        self, records: Records, identity: str, method: str, model: str | None, ask: Ask, *, budgeted: bool
    ) -> None:
        self._records, self._method, self._model, self._ask = records, method, model, ask
        self._budgeted = budgeted and ask is not NOTHING and not ask.subject
        self._identity = identity
        self._over = self._spent = False
        self._bytes_in: int | None = None
        self.charge: Charge | None = None
        self.second_factor = False

    @property
    def caller(self) -> str:
        return self._identity

    @property
    def stored(self) -> bytes | None:
        return None if self.charge is None else self.charge.stored

    @property
    def records(self) -> int:
        return 0 if self.charge is None else self.charge.records

    def charged(self, budgets: Budgets) -> tuple[str, bytes, int, bytes, bytes]:
        """Arguments of `Budgets.charge`: with no request id where answers are not kept."""
        ask = self._ask
        if ask.queries is None or not ask.request_id:
            return self._identity, ask.model_digest, ask.records, b"", b""
        queries = [list(query) for query in ask.queries()]  # each look makes them anew
        self._bytes_in = _size(queries)
        content = budgets.fingerprint(ask.model_digest, ask.plan_digest, ask.key_digest, queries)
        return self._identity, ask.model_digest, ask.records, ask.request_id, content

    def begin_answer(self) -> None:
        if not self._spent:
            self._require_charged()
            self._write(BEGUN)
            self._spent = True

    def finish(self, outcome: str, answer: bytes | None = None, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        charge = self.charge
        if outcome == "ok":
            self._require_charged()
        else:
            self._give_back()
        sent = answer if answer is not None else self.stored
        self._write(outcome, bytes_in=bytes_in, bytes_out=bytes_out if sent is None else len(sent))
        self._over = True
        if charge is not None and answer is not None:
            charge.keep(answer)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._over:
            self.fail(error or InternalFault("the call was left unfinished"))

    def _require_charged(self) -> None:
        if self._budgeted and self.charge is None:
            raise InternalFault("budgets: a request was evaluated that was not charged")

    def _give_back(self) -> None:
        if self.charge is not None and not self._spent:
            self.charge.give_back()

    def fail(self, error: BaseException) -> None:
        """It is not answered: what was charged comes back, and the log says why."""
        self._over = True
        self._give_back()
        self._records.refused(self._identity, self._method, error, self._model, **self._fields())

    def _write(self, outcome: str, **sizes: int) -> None:
        fields = self._fields(**sizes)
        if self._ask.subject:  # an administrator's debit
            fields["records"] = self._ask.records
        self._records.write(self._identity, self._method, outcome, self._model, **fields)

    def _received(self) -> int:
        if self._bytes_in is None:
            self._bytes_in = 0 if self._ask.queries is None else _size(self._ask.queries())
        return self._bytes_in

    def _fields(self, *, bytes_in: int = 0, bytes_out: int = 0) -> dict[str, Any]:
        """Of the event. What a client sent counts as a digest only where it is as long as one."""
        ask = self._ask
        return {
            "model_digest": _digest(ask.model_digest),
            "plan_digest": _digest(ask.plan_digest),
            "key_digest": _digest(ask.key_digest),
            # Charged once: with the entry before the first answer, where there is one.
            "records": 0 if self.charge is None or self._spent else self.charge.records,
            "bytes_in": bytes_in or self._received(),
            "bytes_out": bytes_out,
            "request_id": ask.request_id,
            "stored": self.stored is not None,
            "second_factor": self.second_factor,
            "subject": ask.subject,
        }


def is_loggable(model: str) -> bool:
    """Whether the log takes that name of a model."""
    try:
        Event(who=UNAUTHENTICATED, method="ListModels", outcome="ok", model=model)
    except InternalFault:
        return False
    return True


def _size(queries: Sequence[Sequence[bytes]]) -> int:
    return sum(len(ciphertext) for query in queries for ciphertext in query)


def _digest(sent: bytes) -> bytes:
    return sent if len(sent) == _DIGEST_BYTES else b""


@lru_cache(maxsize=256)
def _method(method: str) -> str:
    return canonical(method).replace(":", "/")  # the log's names have no colon: "KeyService/DeleteKeys/others"


@lru_cache(maxsize=1024)
def _loggable(identity: str) -> str:
    """The identity where the log takes it, else its SHA-256: a caller is not turned away for a long name."""
    if 0 < len(identity) <= _LONGEST_WHO and identity.isprintable():
        return identity
    return f"identity-sha256:{hashlib.sha256(identity.encode()).hexdigest()}"


def _outcome(error: BaseException) -> str:
    if isinstance(error, SecureInferError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else InternalFault.reason
