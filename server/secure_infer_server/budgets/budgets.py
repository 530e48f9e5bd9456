"""Counts what callers ask of models, and answers identical requests with what was answered before.

A server that evaluates under encryption sees ciphertexts only: it can count queries, and it can flood answers more coarsely.
It cannot round them nor say the label alone; that takes evaluation between two parties (`secure_infer.mpc`). Rounding by the
client defends nothing: whoever decrypts sees what was there before.

    charge = budgets.charge("hospital-a", model_digest, 1, request_id, budgets.fingerprint(...))   # or `await budgets.acharge`
    if charge.stored is None:
        charge.keep(answer)     # evaluated and answered
        charge.give_back()      # or: nothing was evaluated, as for a key that is not held

A request without an id, and a batch, which is too large to keep, are charged each time. So is a request that comes again
while the first is being evaluated: either answer is paid for.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from time import time
from typing import NamedTuple

from secure_infer.errors import InternalFault
from secure_infer_server.budgets.answers import Answers, File, Memory, Name
from secure_infer_server.budgets.fingerprint import KEY_BYTES, Fingerprints
from secure_infer_server.budgets.leases import Leases, Moment
from secure_infer_server.budgets.ledger import Key, Ledger, Used
from secure_infer_server.budgets.settings import Allowance, BudgetSettings


class _Request(NamedTuple):
    identity: str
    model: bytes
    records: int
    id: bytes
    content: bytes

    @property
    def key(self) -> Key:
        return (self.identity, self.model)

    @property
    def name(self) -> Name:
        return (self.identity, self.id)


class Charge:
    """One request that was let through. stored: the answer given before, and nothing was charged; else None.

    records: charged.
    """

    __slots__ = ("_answers", "_leases", "_lock", "_request", "_taken", "records", "stored")

    def __init__(
        self,
        leases: Leases,
        answers: Answers,
        request: _Request,
        records: int,
        taken: Moment,
        stored: bytes | None = None,
    ) -> None:
        self._leases, self._answers, self._request = leases, answers, request
        self.records, self._taken, self.stored = records, taken, stored
        self._lock = threading.Lock()

    def keep(self, answer: bytes) -> None:
        """What was answered, for identical requests."""
        if self._request.id and self.stored is None:
            self._answers.keep(self._request.name, self._request.content, answer)

    def give_back(self) -> None:
        """Nothing was evaluated and nothing learned: the records are not counted. Once; again does nothing."""
        with self._lock:
            records, self.records = self.records, 0
        if records:
            self._leases.give_back(self._request.key, records, self._taken)


class Budgets:
    """Safe to share between threads and tasks. See the module's docstring."""

    def __init__(self, settings: BudgetSettings, clock: Callable[[], float] = time) -> None:
        """clock: seconds since 1970. Raises SettingsError where a file cannot be opened."""
        self._settings = settings
        self._names: dict[bytes, str] = {}
        self._ledger = Ledger(settings.path)
        self._leases = Leases(self._ledger, settings.block, settings.idle, clock)
        memory, key = Memory(settings.answer_bytes, settings.answer_seconds, clock), secrets.token_bytes(KEY_BYTES)
        shelves: list[Memory | File] = [memory]
        if settings.answer_file is not None:
            file = File(settings.answer_file, settings.answer_file_bytes, settings.answer_seconds, clock)
            shelves, key = [memory, file], file.key
        self._answers = Answers(*shelves, clock=clock)
        self._fingerprints = Fingerprints(key)

    def serve(self, name: str, model_digest: bytes) -> None:
        """Models of that digest have the allowance of that name; others have the one that holds for all.

        A new version of a model has a digest and so a count of its own.
        """
        self._names[model_digest] = name

    def allowance(self, model_digest: bytes) -> Allowance:
        return self._settings.of(self._names.get(model_digest, ""))

    def fingerprint(
        self, model_digest: bytes, plan_digest: bytes, key_digest: bytes, queries: Sequence[Sequence[bytes]]
    ) -> bytes:
        """What tells a request from others, as `charge` takes it (16 bytes)."""
        return self._fingerprints.of(model_digest, plan_digest, key_digest, queries)

    def charge(
        self, identity: str, model_digest: bytes, records: int, request_id: bytes = b"", content: bytes = b""
    ) -> Charge:
        """Count `records`, of plan capacity; about once a block this waits for one transaction of the ledger.

        content: the request's `fingerprint`, with a request id.
        Raises BudgetExhausted, BudgetUnavailable, or RequestIdReused for an id that was used for another request.
        """
        request = _Request(identity, model_digest, records, request_id, content)
        # Before it is charged: what is given back of a request at midnight is not of the new day.
        now = self._leases.moment(request.key)
        charge = self._charge_now(request, now)
        if charge is None:
            charge = self._charge_by_lease(request, now)
        return charge

    async def acharge(
        self, identity: str, model_digest: bytes, records: int, request_id: bytes = b"", content: bytes = b""
    ) -> Charge:
        """As `charge`, for an event loop: the transaction is waited for in a thread. Cancelled, it charges nothing."""
        request = _Request(identity, model_digest, records, request_id, content)
        now = self._leases.moment(request.key)
        charge = self._charge_now(request, now)
        if charge is None:
            charging = asyncio.ensure_future(asyncio.to_thread(self._charge_by_lease, request, now))
            try:
                charge = await asyncio.shield(charging)
            except asyncio.CancelledError:
                charging.add_done_callback(_undo)  # the thread goes on
                raise
        return charge

    def _charge_by_lease(self, request: _Request, now: Moment) -> Charge:
        self._leases.lease_and_take(request.key, self.allowance(request.model), request.records)
        return Charge(self._leases, self._answers, request, request.records, now)

    def _charge_now(self, request: _Request, now: Moment) -> Charge | None:
        """None where records have to be leased first."""
        if request.records < 1:
            raise InternalFault(f"budgets: expected to charge at least one record, got {request.records}")
        if request.id:
            stored = self._answers.find(request.name, request.content)
            if stored is not None:
                return Charge(self._leases, self._answers, request, 0, now, stored)
        allowance = self.allowance(request.model)
        if allowance.unlimited:
            return Charge(self._leases, self._answers, request, 0, now)
        if not self._leases.take(request.key, allowance, request.records):
            return None
        return Charge(self._leases, self._answers, request, request.records, now)

    def used(self, identity: str, model_digest: bytes) -> Used:
        """What was spent, ever and today, and what other processes have leased and not spent; reads the ledger."""
        day, key = self._leases.day, (identity, model_digest)
        return self._spent(key, self._ledger.used(key, day), day)

    def debits(self, identity: str | None, most: int) -> list[tuple[Key, Used]]:
        """As `used`, of one identity's budgets, or of all; at most so many, the largest debits first."""
        day = self._leases.day
        return [(key, self._spent(key, used, day)) for key, used in self._ledger.debits(identity, day, most)]

    def _spent(self, key: Key, debited: Used, day: int) -> Used:
        unspent = self._leases.unspent(key, day)
        return Used(max(0, debited.total - unspent.total), max(0, debited.day - unspent.day))

    def reset(self, identity: str, model_digest: bytes | None) -> int:
        """Set what was debited back to nothing, for one model or all; returns for how many models. What other processes have
        leased ahead at that moment, at most a block each, is spent besides. Raises BudgetUnavailable."""
        count = self._ledger.reset(identity, model_digest)
        self._leases.drop(identity, model_digest)
        return count

    def debit(self, identity: str, model_digests: Collection[bytes], records: int, *, today: bool = False) -> None:
        """Count records that were spent and that the ledger does not know of, for each version: of the total, and of today where
        it is said; all or none. What processes have leased ahead they still spend. Raises BudgetUnavailable."""
        self._ledger.debit(
            [(identity, digest) for digest in model_digests], records, self._leases.day if today else None
        )

    def close(self) -> None:
        """Return what was leased and not spent."""
        self._leases.close()
        self._answers.close()
        self._ledger.close()


def _undo(charging: asyncio.Future[Charge]) -> None:
    """Of a caller that left before it had its charge."""
    if not charging.cancelled() and charging.exception() is None:
        charging.result().give_back()
