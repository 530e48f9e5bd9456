"""Budgets: leased in memory, durable first, never overspent; identical requests get the stored answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import InternalFault, SettingsError
from secure_infer_server.budgets import (
    Allowance,
    BudgetExhausted,
    Budgets,
    BudgetSettings,
    BudgetUnavailable,
    RequestIdReused,
    leases,
    single_capacity,
)
from secure_infer_server.budgets.fingerprint import Fingerprints
from secure_infer_server.budgets.ledger import Ledger
from shared import until

MODEL, OTHER = b"m" * 32, b"o" * 32
NOON = 20_000 * 86400 + 43200.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(path: Path, clock: Callable[[], float] = lambda: NOON, **options: object) -> Iterator[Budgets]:
    budgets = Budgets(BudgetSettings(path / "budgets.sqlite", **options), clock)  # type: ignore[arg-type]
    try:
        yield budgets
    finally:
        budgets.close()


def spend(budgets: Budgets, most: int, identity: str = "a", model: bytes = MODEL, records: int = 1) -> int:
    """Charges that are taken before the first refusal."""
    for taken in range(most):
        try:
            budgets.charge(identity, model, records)
        except BudgetExhausted:
            return taken
    return most


def test_exactly_the_allowance_is_taken_by_identity_and_model(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=500)) as budgets:
        assert spend(budgets, 1000) == 500
        assert spend(budgets, 1000, identity="b") == 500
        assert spend(budgets, 1000, model=OTHER) == 500
        assert budgets.used("a", MODEL).total == 500


def test_a_models_own_allowance(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=5), models={"open": Allowance(), "small": Allowance(2)}) as budgets:
        budgets.serve("open", OTHER)
        budgets.serve("small", MODEL)
        assert spend(budgets, 50, model=OTHER) == 50
        assert spend(budgets, 50, model=MODEL) == 2
        assert spend(budgets, 50, model=b"x" * 32) == 5


def test_daily_allowances_renew_at_midnight_and_totals_do_not(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock, allowance=Allowance(total=250, daily=100), block=16) as budgets:
        assert spend(budgets, 300) == 100
        with pytest.raises(BudgetExhausted, match=r"renews at 2024-10-05T00:00:00Z") as refused:
            budgets.charge("a", MODEL, 1)
        assert refused.value.details["renews"] == "2024-10-05T00:00:00Z"
        clock.now += 86400
        assert spend(budgets, 300) == 100
        clock.now -= 86400  # a clock set back brings nothing
        assert spend(budgets, 300) == 0
        clock.now += 2 * 86400
        assert spend(budgets, 300) == 50
        with pytest.raises(BudgetExhausted, match="does not renew"):
            budgets.charge("a", MODEL, 1)


def test_what_a_lease_had_left_at_midnight_returns_to_the_total(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock, allowance=Allowance(total=1600)) as budgets:
        for _ in range(10):
            budgets.charge("a", MODEL, 1)
            clock.now += 86400
    with opened(tmp_path, clock, allowance=Allowance(total=1600)) as budgets:
        assert budgets.used("a", MODEL).total == 10


def test_a_block_of_one_leases_nothing_ahead(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=1000), block=1) as budgets:
        for records in (2, 40, 1):
            budgets.charge("a", MODEL, records)
        done = threading.Event()
        budgets._leases._jobs.put(done.set)  # after whatever was to be leased ahead
        assert done.wait(10)
        assert budgets.used("a", MODEL).total == 43


def test_a_request_larger_than_the_allowance_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(daily=1000)) as budgets:
        with pytest.raises(BudgetExhausted, match="4096 records exceeds the allowance of 1000"):
            budgets.charge("a", MODEL, 4096)
        assert spend(budgets, 2000) == 1000


def test_a_refusal_says_nothing_of_others_use(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(daily=7)) as budgets:
        spend(budgets, 5, identity="somebody-else")
        spend(budgets, 7, identity="me")
        with pytest.raises(BudgetExhausted) as refused:
            budgets.charge("me", MODEL, 1)
        assert "somebody" not in refused.value.message
        assert refused.value.details == {"records": "1", "left": "0", "renews": "2024-10-05T00:00:00Z"}
        assert refused.value.status == "RESOURCE_EXHAUSTED"


def debited(directory: Path) -> int:
    """As the file says it, leases that are not spent among it."""
    with sqlite3.connect(directory / "budgets.sqlite") as rows:
        (records,) = rows.execute("SELECT TOTAL(records) FROM debits WHERE day = -1").fetchone()
    rows.close()
    return int(records)


def test_counts_outlive_the_process_and_unspent_leases_return_on_close(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=10_000)) as budgets:
        spend(budgets, 123)
        assert debited(tmp_path) > 123  # ahead
        until(lambda: budgets.used("a", MODEL).total == 123)  # what a thread is leasing counts until it is here
        assert [used.total for _, used in budgets.debits("a", 10)] == [123]
    with opened(tmp_path, allowance=Allowance(total=10_000)) as budgets:
        assert budgets.used("a", MODEL).total == 123
        assert spend(budgets, 20_000) == 10_000 - 123


def test_idle_leases_return(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=10_000), idle=0.05) as budgets:
        spend(budgets, 3)
        until(lambda: debited(tmp_path) == 3)
        taken, waited = 0, threading.Event()
        for _ in range(200):  # a refusal may come while an idle lease is on its way back
            taken += spend(budgets, 20_000)
            if taken == 9997:
                break
            waited.wait(0.02)
        assert taken == 9997
        assert spend(budgets, 1) == 0


def test_records_given_back_are_not_counted_and_only_once(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=50)) as budgets:
        for _ in range(200):
            charge = budgets.charge("a", MODEL, 1)
            charge.give_back()
            charge.give_back()
        assert spend(budgets, 100) == 50


@settings(max_examples=25)
@given(requests=st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=60), block=st.integers(1, 300))
def test_any_sequence_stays_within_the_allowance(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[int, bool]], block: int
) -> None:
    spent, allowance = 0, 200
    with opened(tmp_path_factory.mktemp("b"), allowance=Allowance(total=allowance), block=block) as budgets:
        for records, back in requests:
            try:
                charge = budgets.charge("a", MODEL, records)
            except BudgetExhausted:
                assert spent + records > allowance  # refused only where it does not fit
                continue
            if back:
                charge.give_back()
            else:
                spent += records
        assert spent <= allowance


def test_threads_together_take_exactly_the_allowance(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=3000), block=32) as budgets, ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: spend(budgets, 3000), range(8))) == 3000


def _spend_in_process(path: Path, results: multiprocessing.SimpleQueue[int]) -> None:
    with opened(path, allowance=Allowance(total=2000), block=64) as budgets:
        results.put(spend(budgets, 4000))


def test_processes_that_share_a_ledger_do_not_overspend(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    children = [context.Process(target=_spend_in_process, args=(tmp_path, results)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sum(results.get() for _ in children) <= 2000
    with opened(tmp_path, allowance=Allowance(total=2000)) as budgets:
        spend(budgets, 4000)
        assert budgets.used("a", MODEL).total == 2000


def test_a_killed_process_loses_its_lease_and_grants_nothing_extra(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from secure_infer_server.budgets import *\n"
        "budgets = Budgets(BudgetSettings(Path(sys.argv[1]) / 'budgets.sqlite', Allowance(total=10_000), block=64))\n"
        "for _ in range(100): budgets.charge('a', b'm' * 32, 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    with opened(tmp_path, allowance=Allowance(total=10_000)) as budgets:
        assert 100 <= budgets.used("a", MODEL).total <= 100 + 2 * 64


def test_a_fork_cannot_spend_the_same_lease(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=1000)) as budgets:
        budgets.charge("a", MODEL, 1)
        child = os.fork()
        if not child:
            try:
                budgets.charge("a", MODEL, 1)
            except InternalFault:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_event_loop_takes_exactly_the_allowance(tmp_path: Path) -> None:
    async def one(budgets: Budgets) -> int:
        try:
            await budgets.acharge("a", MODEL, 1)
        except BudgetExhausted:
            return 0
        return 1

    async def all_of_them(budgets: Budgets) -> int:
        return sum(await asyncio.gather(*(one(budgets) for _ in range(300))))

    with opened(tmp_path, allowance=Allowance(total=200), block=8) as budgets:
        assert asyncio.run(all_of_them(budgets)) == 200


def test_an_identical_request_gets_the_stored_answer_and_is_not_charged(tmp_path: Path) -> None:
    content = b"c" * 16
    with opened(tmp_path, allowance=Allowance(total=2)) as budgets:
        first = budgets.charge("a", MODEL, 1, b"id", content)
        assert first.stored is None
        first.keep(b"answer")
        for _ in range(20):
            again = budgets.charge("a", MODEL, 1, b"id", content)
            assert (again.stored, again.records) == (b"answer", 0)
            again.keep(b"another")
            again.give_back()
        with pytest.raises(RequestIdReused):
            budgets.charge("a", MODEL, 1, b"id", b"d" * 16)
        theirs = budgets.charge("b", MODEL, 1, b"id", b"d" * 16)
        assert theirs.stored is None
        assert spend(budgets, 10) == 1


def test_requests_without_an_id_or_under_way_are_charged(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=4)) as budgets:
        budgets.charge("a", MODEL, 1).keep(b"answer")
        assert budgets.charge("a", MODEL, 1).stored is None
        assert budgets.charge("a", MODEL, 1, b"id", b"c").stored is None
        assert budgets.charge("a", MODEL, 1, b"id", b"c").stored is None
        assert spend(budgets, 4) == 0


def test_stored_answers_age_and_are_bounded(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock, answer_seconds=10, answer_bytes=4 * (1000 + 512)) as budgets:
        for i in range(6):
            budgets.charge("a", MODEL, 1, b"%d" % i, b"c").keep(bytes(1000))
        held = [budgets.charge("a", MODEL, 1, b"%d" % i, b"c").stored is not None for i in range(6)]
        assert held == [False, False, True, True, True, True]
        clock.now += 11
        assert budgets.charge("a", MODEL, 1, b"5", b"c").stored is None


def test_a_file_of_answers_outlives_the_process_and_is_bounded(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock, answer_file=tmp_path / "answers", answer_file_bytes=200_000) as budgets:
        for i in range(100):
            budgets.charge("a", MODEL, 1, b"%d" % i, b"c").keep(bytes(5000))
    with opened(tmp_path, clock, answer_file=tmp_path / "answers") as budgets:
        assert budgets.charge("a", MODEL, 1, b"99", b"c").stored == bytes(5000)
        assert budgets.charge("a", MODEL, 1, b"0", b"c").stored is None
        with pytest.raises(RequestIdReused):
            budgets.charge("a", MODEL, 1, b"99", b"d")
        clock.now += 601
        assert budgets.charge("a", MODEL, 1, b"99", b"c").stored is None
    assert (tmp_path / "answers").stat().st_mode & 0o077 == 0


def test_fingerprints_separate_their_parts() -> None:
    fingerprint = Fingerprints(bytes(16)).of
    assert fingerprint(b"ab", b"", b"", []) != fingerprint(b"a", b"b", b"", [])
    requests = [[[b"ab"]], [[b"a", b"b"]], [[b"a"], [b"b"]], [[b"ab"], []], [[], [b"ab"]], [[b"ab", b""]], []]
    found = [fingerprint(b"", b"", b"", queries) for queries in requests]
    assert len(set(found)) == len(requests)
    assert found == [fingerprint(b"", b"", b"", queries) for queries in requests]
    assert found[0] != Fingerprints(b"k" * 16).of(b"", b"", b"", requests[0])


def test_processes_that_share_answers_share_the_key_of_their_fingerprints(tmp_path: Path) -> None:
    request = (MODEL, b"plan", b"key", [[b"c"]])
    with (
        opened(tmp_path, answer_file=tmp_path / "answers") as one,
        opened(tmp_path, answer_file=tmp_path / "answers") as two,
    ):
        assert one.fingerprint(*request) == two.fingerprint(*request)
    with opened(tmp_path) as alone:
        assert alone.fingerprint(*request) != one.fingerprint(*request)


def test_capacity_of_single_queries() -> None:
    assert single_capacity(7) == 7


def test_nothing_is_answered_when_the_ledger_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, allowance=Allowance(total=1000), block=1) as budgets:
        with sqlite3.connect(tmp_path / "budgets.sqlite") as other:
            other.execute("DROP TABLE debits")
        for _ in range(3):
            with pytest.raises(BudgetUnavailable):
                spend(budgets, 3)
    told = [record.message for record in caplog.records if "queries are refused" in record.message]
    assert told == [
        f"budgets: {tmp_path / 'budgets.sqlite'} cannot be used (no such table: debits): queries are refused"
    ]


def test_a_caller_that_keeps_asking_costs_no_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    lease = Ledger.lease

    def counted(self: Ledger, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return lease(self, *arguments)

    monkeypatch.setattr(Ledger, "lease", counted)
    monkeypatch.setattr(leases, "REFUSAL_SECONDS", 3600.0)
    with opened(tmp_path, allowance=Allowance(daily=5)) as budgets:
        assert spend(budgets, 10) == 5
        before = asked
        for _ in range(100):
            with pytest.raises(BudgetExhausted):
                budgets.charge("a", MODEL, 1)
        assert asked <= before + 1


def test_a_refusal_is_forgotten_when_the_operator_allows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "REFUSAL_SECONDS", 0.0)
    with opened(tmp_path, allowance=Allowance(total=5)) as budgets:
        assert spend(budgets, 10) == 5
    with opened(tmp_path, allowance=Allowance(total=8)) as budgets:
        assert spend(budgets, 10) == 3


def test_closed_budgets_take_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, allowance=Allowance(total=1000)) as budgets:
        budgets.charge("a", MODEL, 1)
    with pytest.raises(BudgetUnavailable):
        budgets.charge("a", MODEL, 1)


def test_a_lease_is_durable_before_it_is_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    assert ledger.lease(("a", MODEL), Allowance(total=100), 1, 64, 3).records == 6
    with sqlite3.connect(tmp_path / "l") as other:
        assert sorted(other.execute("SELECT day, records FROM debits")) == [(-1, 6), (3, 6)]
    ledger.forget_before(4)
    assert ledger.used(("a", MODEL), 3).day == 0
    assert ledger.used(("a", MODEL), 3).total == 6
    ledger.close()


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 1 record"):
        Allowance(total=0)
    with pytest.raises(SettingsError, match="block"):
        BudgetSettings(tmp_path / "b", block=0)
    with pytest.raises(SettingsError, match="cannot be opened"):
        Budgets(BudgetSettings(tmp_path / "none" / "b"))
    with pytest.raises(SettingsError, match="two files"):
        BudgetSettings(tmp_path / "b", answer_file=tmp_path / "b")
    (tmp_path / "junk").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match="SQLite"):
        Budgets(BudgetSettings(tmp_path / "junk"))
    with pytest.raises(InternalFault), opened(tmp_path, allowance=Allowance(total=5)) as budgets:
        budgets.charge("a", MODEL, 0)
