"""Where administrative calls look: everybody's keys in each store, the ledger of budgets over processes, the log's standing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_infer_server.audit.event import Event
from secure_infer_server.audit.log import AuditLog
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetExhausted, Budgets, BudgetSettings
from secure_infer_server.budgets.ledger import Used
from secure_infer_server.keys.backend import Backend
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.redis_backend import RedisBackend
from secure_infer_server.keys.redis_rows import RedisSettings
from server.keys.stores import Clock, RedisServer, fine, name_of

WARD, LAB = "cn:ward-7", "cn:lab"
MODEL, OTHER = b"m" * 32, b"o" * 32


@pytest.fixture(params=["memory", "disk", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Backend, Clock]]:
    clock, limits = Clock(), KeyLimits(expiry=100.0)
    server = RedisServer() if request.param == "redis" else None
    if server is not None:
        made: Backend = RedisBackend(RedisSettings(server.url), limits, clock)
    else:
        made = (
            DiskBackend(tmp_path / "keys", limits, clock) if request.param == "disk" else MemoryBackend(limits, clock)
        )
    yield made, clock
    made.close()
    if server is not None:
        server.close()


def test_everybodys_keys(store: tuple[Backend, Clock]) -> None:
    backend, clock = store
    names = [name_of(owner, data) for owner, data in ((WARD, b"a"), (LAB, b"a"), (WARD, b"b"))]
    for name, data in zip(names, (b"a", b"a", b"b"), strict=True):
        backend.begin(name, "icd", 1)
        backend.append(name, 0, data)
        backend.commit(name, fine)
    backend.begin(name_of(LAB, b"c"), "icd", 1)  # an upload is no key yet
    backend.touch(names[0])
    assert [key.name for key in backend.held(None)] == [names[1], names[2], names[0]]
    assert [key.name for key in backend.held(LAB)] == [names[1]]
    clock.now += 99.9
    backend.touch(names[2])
    clock.now += 1
    assert [key.name for key in backend.held(None)] == [names[2]]  # the others are past their time


def opened(path: Path) -> Budgets:
    made = Budgets(BudgetSettings(path / "budgets.sqlite", Allowance(total=100), block=4))
    made.serve("icd", MODEL)
    return made


def test_debits_and_resets(tmp_path: Path) -> None:
    budgets, beside = opened(tmp_path), opened(tmp_path)
    for identity, model, records in ((WARD, MODEL, 10), (WARD, OTHER, 6), (LAB, MODEL, 3)):
        budgets.charge(identity, model, records)
    found = budgets.debits(None, 10)
    assert [key for key, _ in found] == [(WARD, MODEL), (WARD, OTHER), (LAB, MODEL)]
    assert found[0][1].total >= found[0][1].day >= 10
    assert [key for key, _ in budgets.debits(None, 1)] == [(WARD, MODEL)]
    assert [key for key, _ in budgets.debits(LAB, 10)] == [(LAB, MODEL)]
    assert budgets.reset(WARD, MODEL) == 1
    assert budgets.reset("cn:nobody", None) == 0
    assert dict(budgets.debits(None, 10)).get((WARD, MODEL), Used(0, 0)).total <= 4
    assert budgets.reset(WARD, None) >= 1
    beside.charge(WARD, MODEL, 2)
    left = dict(budgets.debits(WARD, 10))
    assert left[WARD, MODEL].total >= 2  # another process's
    assert left.get((WARD, OTHER), Used(0, 0)).total <= 4  # a block that was being leased as it was reset
    budgets.close()
    beside.close()


def test_a_debit_is_of_the_total_and_outlives_the_process(tmp_path: Path) -> None:
    budgets = opened(tmp_path)
    budgets.debit(WARD, [MODEL, OTHER], 60)
    budgets.debit(WARD, [MODEL], 60)  # also beyond what is allowed
    assert (budgets.used(WARD, MODEL), budgets.used(WARD, OTHER)) == (Used(120, 0), Used(60, 0))
    with pytest.raises(BudgetExhausted, match=r"1 records asked, 0 left of the allowance of 100 "):
        budgets.charge(WARD, MODEL, 1)
    budgets.charge(LAB, MODEL, 1)
    budgets.close()
    budgets = opened(tmp_path)
    assert budgets.used(WARD, MODEL) == Used(120, 0)
    budgets.close()


def test_after_a_reset_no_more_than_the_allowance_is_had(tmp_path: Path) -> None:
    """What was leased ahead before is not spent besides."""
    budgets = opened(tmp_path)
    budgets.charge(WARD, MODEL, 97)
    budgets.reset(WARD, MODEL)
    taken = 0
    with pytest.raises(Exception, match="budget"):
        while True:
            budgets.charge(WARD, MODEL, 1)
            taken += 1
    assert 100 - 2 * 4 <= taken <= 100  # a block that was being leased as it was reset may be lost
    budgets.close()


def test_the_logs_standing(tmp_path: Path) -> None:
    log = AuditLog(AuditSettings(tmp_path / "log", commit=0.0, checkpoint_entries=1))
    begun = log.standing
    assert begun.head == begun.checkpoint
    log.record(Event(who=WARD, method="M/X", outcome="ok"))
    log.flush(10)
    assert log.standing.head[0] > begun.head[0]
    log.close()
    assert log.standing.key == begun.key
    assert (log.standing.waiting, log.standing.failure) == (0, "")
