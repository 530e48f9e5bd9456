"""Records that are leased, charged or given back while something else happens: nothing is spent twice, nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secure_infer.errors import BudgetExhausted, BudgetUnavailable
from secure_infer_server.budgets import Allowance, Budgets, BudgetSettings
from secure_infer_server.budgets.leases import DAY, Leases, Moment
from secure_infer_server.budgets.ledger import Ledger
from server.budgets.test_budgets import debited
from shared import until

MODEL = b"m" * 32
KEY = ("cn:a", MODEL)
PLENTY = Allowance(total=100_000)


class Held:
    """Transactions of leases that wait until they are let `go`; before or after they are done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.after = threading.Event(), threading.Event(), False
        self._lease = Ledger.lease
        monkeypatch.setattr(Ledger, "lease", lambda ledger, *asked: self._wait(ledger, *asked))

    def _wait(self, ledger: Ledger, *asked: Any) -> Any:
        found = self._lease(ledger, *asked) if self.after else None
        self.begun.set()
        assert self.go.wait(20)
        return self._lease(ledger, *asked) if found is None else found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    made.go.set()
    yield made
    made.go.set()


def opened(path: Path, allowance: Allowance = PLENTY, **options: Any) -> Budgets:
    return Budgets(BudgetSettings(path / "budgets.sqlite", allowance, **options))


def together(*work: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    return threads


def test_a_renewal_that_waits_when_budgets_close_leases_nothing(tmp_path: Path, held: Held) -> None:
    budgets = opened(tmp_path)
    budgets.charge(*KEY, 1)
    held.begun.clear()
    held.go.clear()
    for _ in range(200):  # below the mark
        budgets.charge(*KEY, 1)
    assert held.begun.wait(20)
    (closing,) = together(budgets.close)
    until(lambda: budgets._leases._closed)
    held.go.set()
    closing.join()
    assert debited(tmp_path) == 201


def test_a_lease_under_way_when_budgets_close_comes_back(tmp_path: Path, held: Held) -> None:
    budgets, refused = opened(tmp_path), []
    held.after = True
    held.go.clear()

    def charge() -> None:
        try:
            budgets.charge(*KEY, 1)
        except BudgetUnavailable as error:
            refused.append(error)

    (charging,) = together(charge)
    assert held.begun.wait(20)
    (closing,) = together(budgets.close)
    until(lambda: budgets._leases._closed)
    held.go.set()
    charging.join()
    closing.join()
    assert len(refused) == 1
    assert debited(tmp_path) == 0


def test_what_comes_back_after_leases_were_closed_is_in_the_ledger(tmp_path: Path) -> None:
    budgets = opened(tmp_path)
    charge = budgets.charge(*KEY, 4096)
    budgets._leases.close()
    charge.give_back()
    budgets.close()
    assert debited(tmp_path) == 0


def test_a_call_that_is_cancelled_while_it_is_charged_costs_nothing(tmp_path: Path, held: Held) -> None:
    async def run() -> None:
        call = asyncio.create_task(budgets.acharge(*KEY, 4096))
        await asyncio.to_thread(held.begun.wait, 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        held.go.set()
        for _ in range(2000):
            if not budgets.used(*KEY).total:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("its records are spent")

    budgets = opened(tmp_path)
    held.after = True
    held.go.clear()
    asyncio.run(run())
    budgets.close()
    assert debited(tmp_path) == 0


def test_what_was_charged_before_a_reset_does_not_come_back_after_it(tmp_path: Path) -> None:
    budgets = opened(tmp_path, Allowance(total=5000), block=16)
    before, others = budgets.charge(*KEY, 4096), budgets.charge("cn:b", MODEL, 4096)
    budgets.reset("cn:a", MODEL)
    during = budgets.charge(*KEY, 1000)
    budgets.reset("cn:a", None)
    spent = 4500
    budgets.charge(*KEY, spent)
    before.give_back()
    during.give_back()
    with pytest.raises(BudgetExhausted, match="500 left"):
        budgets.charge(*KEY, 501)
    others.give_back()
    assert budgets.charge("cn:b", MODEL, 5000).records == 5000
    budgets.close()


def test_yesterdays_refusal_is_not_todays(tmp_path: Path, held: Held) -> None:
    now = [100 * DAY + DAY - 0.1]
    ledger, allowance = Ledger(tmp_path / "l"), Allowance(daily=100)
    leases = Leases(ledger, 10, 30.0, lambda: now[0])
    ledger.debit([KEY], 100, 100)
    held.after = True
    held.go.clear()
    taken: list[bool] = []
    (asking,) = together(lambda: taken.append(leases.lease_and_take(KEY, allowance, 1) is None))
    assert held.begun.wait(20)
    now[0] += 1
    assert not leases.take(KEY, allowance, 1)  # somebody else's call is the new day's first
    held.go.set()
    asking.join()
    assert taken == [True]
    leases.lease_and_take(KEY, allowance, 1)
    leases.close()
    assert ledger.used(KEY, 101).day == 2
    ledger.close()


def test_a_clock_that_was_ahead_for_a_moment_renews_nothing_after_a_restart(tmp_path: Path) -> None:
    now = [100 * DAY + 10.0]

    def spend() -> int:
        ledger = Ledger(tmp_path / "l")
        leases = Leases(ledger, 1, 0.02, lambda: now[0])
        spent = 0
        try:
            while True:
                leases.lease_and_take(KEY, Allowance(daily=100), 1)
                spent += 1
        except BudgetExhausted:
            return spent
        finally:
            forgotten = threading.Event()
            forgotten.wait(0.2)  # the thread forgets earlier days when it is idle
            leases.close()
            ledger.close()

    assert spend() == 100
    now[0] += 2 * DAY
    assert spend() == 100
    now[0] -= 2 * DAY
    assert spend() == 0


def test_a_moment_says_what_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    leases = Leases(ledger, 1, 30.0)
    assert leases.moment(KEY) == Moment(leases.day, 0)
    leases.drop("cn:b", None)
    assert leases.moment(KEY).resets == 0
    leases.drop("cn:a", None)
    leases.drop("cn:a", MODEL)
    leases.drop("cn:a", b"o" * 32)
    assert leases.moment(KEY).resets == 2
    leases.close()
    ledger.close()
