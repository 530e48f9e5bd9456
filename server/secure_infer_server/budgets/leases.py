"""Records leased from the ledger and spent in memory: counting a query takes microseconds, and a debit is always durable first.

    ledger: 1000 of 1000 left     lease 62 (a sixteenth)     ledger: 938 left, written     memory: 62, 61, 60, ...
    half of it spent              a thread leases on         ledger: 880 left              memory: 31 + 58

Near the end leases shrink to what a request needs, so that processes which share a ledger do not starve one another.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import NamedTuple

from secure_infer.errors import BudgetExhausted, BudgetUnavailable, InternalFault
from secure_infer_server.budgets.ledger import BUSY_SECONDS, Grant, Key, Ledger, Used
from secure_infer_server.budgets.settings import Allowance

DAY = 86400
REMEMBERED_DAYS = 31
"""Counts of days stay for so long: a clock that was ahead for a moment, and a restart, renew nothing."""
REFUSAL_SECONDS = 1.0
"""After the ledger had too little, the same is refused from memory: a caller that keeps asking costs no transactions."""


@dataclass(slots=True)
class _Lease:
    """left: records. day: whose allowance they are of. mark: below it, more are leased. used: when, on the monotonic clock.
    short: what the ledger had left when it last refused; until: how long that counts."""

    day: int
    left: int = 0
    mark: int = 0
    used: float = 0.0
    renewing: bool = False
    short: Grant | None = None
    until: float = 0.0


class Moment(NamedTuple):
    """When records were taken. day: whose allowance they are of. resets: of that budget before: what was taken before one does
    not come back after it."""

    day: int
    resets: int


class Leases:
    """Safe to share between threads. They belong to the process that made them: a fork would spend them twice."""

    def __init__(self, ledger: Ledger, block: int, idle: float, clock: Callable[[], float] = time) -> None:
        """clock: seconds since 1970, which say the day."""
        self._ledger, self._block, self._idle, self._clock = ledger, block, idle, clock
        self._leases: dict[Key, _Lease] = {}
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._day = 0
        self._resets: Counter[str | Key] = Counter()
        self._leasing = 0
        self._closed = False
        self._process = os.getpid()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="budgets", daemon=True)
        self._thread.start()

    def take(self, key: Key, allowance: Allowance, records: int) -> bool:
        """Spend from memory; False when that takes a lease first. Raises BudgetExhausted where that is known already."""
        if os.getpid() != self._process:
            raise InternalFault("budgets were used in a fork of the process that made them")
        day, now = int(self._clock() // DAY), monotonic()
        with self._lock:
            if self._closed:
                raise _stopping()
            lease = self._current(key, day)
            lease.used = now
            if records > lease.left:
                short = lease.short
                if short is not None and now < lease.until and records > lease.left + short.left:
                    raise _exhausted(allowance, records, short, lease)
                return False
            lease.left -= records
            if lease.left < lease.mark and not lease.renewing:
                lease.renewing = True
                self._jobs.put(partial(self._renew, key, allowance))
        return True

    def lease_and_take(self, key: Key, allowance: Allowance, records: int) -> None:
        """Spend, leasing what is missing in one transaction. Raises BudgetExhausted or BudgetUnavailable."""
        while not self.take(key, allowance, records):
            with self._lock:
                lease = self._current(key, int(self._clock() // DAY))
                day, missing = lease.day, records - lease.left
            if missing > 0 and not self._lease(key, allowance, missing, day):
                with self._lock:
                    lease = self._current(key, day)
                    short = lease.short
                    # Another thread's lease may have arrived meanwhile.
                    if short is not None and records > lease.left + short.left:
                        raise _exhausted(allowance, records, short, lease)

    def give_back(self, key: Key, records: int, taken: Moment) -> None:
        """Return records that were taken and not used."""
        with self._lock:
            if taken.resets != self._resets_of(key):
                return
            lease, closed = self._leases.get(key), self._closed
            if lease is not None and lease.day == taken.day and not closed:
                lease.left += records
                return
        job = partial(self._ledger.give_back, key, records, taken.day)
        if closed:
            _attempt(job)
        else:
            self._jobs.put(job)

    def unspent(self, key: Key, day: int) -> Used:
        """What this process leased and has not spent: of the total, and of that day."""
        with self._lock:
            lease = self._leases.get(key)
            return Used(0, 0) if lease is None else Used(lease.left, lease.left if lease.day == day else 0)

    def drop(self, identity: str, model: bytes | None) -> None:
        """Forget what this process leased ahead for an identity, for one model or all: nothing goes back to the ledger."""
        with self._lock:
            self._resets[identity if model is None else (identity, model)] += 1
            for key in [key for key in self._leases if key[0] == identity and model in (None, key[1])]:
                del self._leases[key]

    @property
    def day(self) -> int:
        """The day that records taken now are of."""
        return max(self._day, int(self._clock() // DAY))

    def moment(self, key: Key) -> Moment:
        """Now, for what is about to be taken."""
        return Moment(self.day, self._resets_of(key))

    def _resets_of(self, key: Key) -> int:
        return self._resets[key[0]] + self._resets[key]

    def close(self) -> None:
        """Return what is not spent; whoever takes afterwards gets BudgetUnavailable."""
        with self._settled:
            self._closed = True
            self._settled.wait_for(lambda: not self._leasing, 2 * BUSY_SECONDS)
        self._jobs.put(None)
        self._thread.join()
        self._return_idle(float("inf"), _attempt)

    def _current(self, key: Key, day: int) -> _Lease:
        """The lease of today, under the lock; what was left of another day goes back to the total."""
        self._day = day = max(self._day, day)  # a clock that is set back brings no second allowance
        lease = self._leases.get(key)
        if lease is None or lease.day != day:
            if lease is not None and lease.left:
                self._jobs.put(partial(self._ledger.give_back, key, lease.left, lease.day))
            lease = self._leases[key] = _Lease(day)
        return lease

    def _lease(self, key: Key, allowance: Allowance, least: int, day: int) -> bool:
        """False where the ledger has too little left on that day, which is still that of the lease. Raises BudgetUnavailable."""
        with self._lock:
            if self._closed:
                raise _stopping()
            self._leasing += 1
        try:
            grant = self._ledger.lease(key, allowance, least, max(least, self._block), day)
            with self._lock:
                lease = self._current(key, day)
                lease.renewing = False
                if lease.day != day:  # midnight passed between
                    if grant.records:
                        self._jobs.put(partial(self._ledger.give_back, key, grant.records, day))
                    return True
                if grant.records:
                    lease.left += grant.records
                    # Half a block, however large the request that leased: with a block of 1 nothing is leased ahead.
                    lease.mark, lease.short = min(grant.records, self._block) // 2, None
                else:
                    lease.short, lease.until, lease.mark = grant, monotonic() + REFUSAL_SECONDS, 0
        finally:
            with self._settled:
                self._leasing -= 1
                self._settled.notify_all()
        return bool(grant.records)

    def _renew(self, key: Key, allowance: Allowance) -> None:
        with self._lock:
            day = self._day
        try:
            self._lease(key, allowance, 1, day)
        finally:
            with self._lock:
                self._current(key, day).renewing = False

    def _return_idle(self, since: float, give: Callable[[Callable[[], None]], None]) -> None:
        """Give leases back that were last used before `since`. give: does so, at once or later."""
        with self._lock:
            idle = [(key, lease) for key, lease in self._leases.items() if lease.used < since]
            for key, _ in idle:
                del self._leases[key]  # first here, then in the ledger: never spent after it was returned
        for key, lease in idle:
            if lease.left:
                give(partial(self._ledger.give_back, key, lease.left, lease.day))

    def _work(self) -> None:
        swept, forgotten = monotonic(), 0
        while True:
            try:
                job = self._jobs.get(timeout=self._idle / 2)
                if job is None:
                    return
                _attempt(job)
            except Empty:
                pass
            if monotonic() - swept > self._idle / 2:
                swept = monotonic()
                self._return_idle(swept - self._idle, self._jobs.put)
            if forgotten != self.day:
                forgotten = self.day
                _attempt(partial(self._ledger.forget_before, forgotten - REMEMBERED_DAYS))


def _attempt(job: Callable[[], None]) -> None:
    """A renewal that fails is tried again by whoever needs it; what could not be returned stays debited."""
    with suppress(BudgetUnavailable):
        job()


def _stopping() -> BudgetUnavailable:
    return BudgetUnavailable("budgets are closed: the server is stopping")


def _exhausted(allowance: Allowance, records: int, short: Grant, lease: _Lease) -> BudgetExhausted:
    left = short.left + lease.left
    if records > allowance.largest:
        return BudgetExhausted(
            f"budget: a request of {records} records exceeds the allowance of {allowance.largest} for this model, and will "
            "never be taken; send smaller ones. A batch counts with every place of its plan",
            records=records,
            most=allowance.largest,
            renews="never",
        )
    if short.total <= short.daily:
        return BudgetExhausted(
            f"budget: {records} records asked, {left} left of the allowance of {allowance.total} for this model, which does "
            "not renew; ask the operator",
            records=records,
            left=left,
            renews="never",
        )
    renews = datetime.fromtimestamp(DAY * (lease.day + 1), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return BudgetExhausted(
        f"budget: {records} records asked, {left} left of today's allowance of {allowance.daily} for this model; it renews at "
        f"{renews}",
        records=records,
        left=left,
        renews=renews,
    )
