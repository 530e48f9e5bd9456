"""Calls that wait for their turn go together; each caller gets its own rows, and its own errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import AnswerRefused, BudgetExhausted, InvalidInput
from secure_infer.heads import Head
from secure_infer_client import AsyncClient, Client
from secure_infer_client.batches import nothing
from secure_infer_client.calls import Calls
from secure_infer_client.turns import Turns
from shared import unit_rows


class Plan:
    """Enough of a plan for costs."""

    kind, parameters, privacy, security_bits, smudging_bits, error_bound = "none", "N=1", "both-private", 128, 18, 1e-3


class Server:
    """Answers rows with their doubles, one call at a time, while `open` is set. calls: rows of each."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.open = threading.Event()
        self.entered = threading.Event()
        self.problem: Callable[[np.ndarray], Exception | None] = lambda rows: None

    def ask(self, rows: np.ndarray, costs: Any, progress: Any) -> np.ndarray:
        self.calls.append(len(rows))
        costs.plans.append(Plan())
        costs.spec = "the model"
        self.entered.set()
        assert self.open.wait(20)
        problem = self.problem(rows)
        if problem is not None:
            raise problem
        progress(1.0)
        return 2 * rows

    def decide(self, rows: np.ndarray, costs: Any, progress: Any) -> list[str]:
        return [str(value) for value in self.ask(rows, costs, progress)[:, 0]]


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def waiting(turns: Turns, count: int) -> None:
    for _ in range(2000):
        if len(turns._waiting) == count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{len(turns._waiting)} waiting, expected {count}")


@pytest.fixture
def doubles() -> Server:
    return Server()


@pytest.fixture
def turns() -> Turns:
    return Turns(lambda rows: max(1, int((np.cumsum(rows) <= 4).sum())))


class Crowd:
    """Callers on threads of their own, the first of which is being answered while the others come."""

    def __init__(self, doubles: Server, turns: Turns) -> None:
        self._server, self._turns = doubles, turns
        self._pool = ThreadPoolExecutor(32)
        self.first = self._ask(row(0), doubles.ask)
        assert doubles.entered.wait(20)
        self.others: list[Future[Any]] = []

    def add(self, rows: np.ndarray, ask: Any = None, progress: Any = nothing) -> None:
        self.others.append(self._ask(rows, ask or self._server.ask, progress))
        waiting(self._turns, len(self.others))

    def _ask(self, rows: np.ndarray, ask: Any, progress: Any = nothing) -> Future[Any]:
        return self._pool.submit(self._turns.together, ask, rows, progress)

    def go(self) -> None:
        self._server.open.set()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.open.set()
        self._pool.shutdown()


def test_a_lone_caller_is_asked_for_at_once(doubles: Server, turns: Turns) -> None:
    doubles.open.set()
    answers, stats, _ = turns.together(doubles.ask, row(1, 2), nothing)
    assert np.array_equal(answers, row(2, 4))
    assert (doubles.calls, stats.callers, stats.records) == ([2], 1, 2)


def test_those_who_wait_go_together_as_far_as_they_fit(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        for start in range(5):
            crowd.add(row(10 * start, 10 * start + 1)[: 1 + start % 2])  # 1, 2, 1, 2, 1 rows
        crowd.go()
        found = [other.result(20)[0] for other in crowd.others]
    assert doubles.calls == [1, 4, 3]
    for start, answers in enumerate(found):
        assert np.array_equal(answers, 2 * row(10 * start, 10 * start + 1)[: 1 + start % 2])


def test_more_rows_than_fit_go_alone(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        crowd.add(row(*range(9)))
        crowd.add(row(1))
        crowd.go()
        assert len(crowd.others[0].result(20)[0]) == 9
    assert doubles.calls == [1, 9, 1]


def test_other_questions_do_not_mix(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        crowd.add(row(1), doubles.ask)
        crowd.add(row(2), doubles.decide)
        crowd.add(row(3), doubles.decide)
        crowd.go()
        assert [other.result(20)[0] for other in crowd.others[1:]] == [["4.0"], ["6.0"]]
    assert doubles.calls == [1, 1, 2]


def test_costs_are_those_of_the_call(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        crowd.add(row(1))
        crowd.add(row(2, 3))
        crowd.go()
        stats = [other.result(20)[1] for other in crowd.others]
    assert [(s.callers, s.records) for s in stats] == [(2, 3)] * 2


@pytest.mark.parametrize("problem", [InvalidInput("bound"), BudgetExhausted("two records are left")])
def test_what_is_wrong_with_one_is_that_ones(doubles: Server, turns: Turns, problem: Exception) -> None:
    with Crowd(doubles, turns) as crowd:
        doubles.problem = lambda rows: problem if (rows > 8).any() else None
        for value in (1, 9, 2):
            crowd.add(row(value))
        crowd.go()
        assert np.array_equal(crowd.others[0].result(20)[0], row(2))
        assert np.array_equal(crowd.others[2].result(20)[0], row(4))
        with pytest.raises(type(problem)):
            crowd.others[1].result(20)
    assert doubles.calls == [1, 3, 1, 1, 1]


def test_a_refused_answer_is_everybodys_and_is_not_asked_again(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        doubles.problem = lambda rows: AnswerRefused("range", key="destroyed")
        for value in (1, 2, 3):
            crowd.add(row(value))
        crowd.go()
        problems = [other.exception(20) for other in crowd.others]
    assert doubles.calls == [1, 3]
    assert len(set(map(id, problems))) == 3  # each thread raises its own
    assert {(type(p), p.message, p.details["key"]) for p in problems} == {(AnswerRefused, "range", "destroyed")}


def test_a_callers_progress_is_its_own_business(doubles: Server, turns: Turns) -> None:
    seen: list[float] = []

    def broken(done: float) -> None:
        raise ZeroDivisionError

    with Crowd(doubles, turns) as crowd:
        crowd.add(row(1), progress=broken)
        crowd.add(row(2), progress=seen.append)
        crowd.go()
        assert np.array_equal(crowd.others[1].result(20)[0], row(4))
        with pytest.raises(ZeroDivisionError):
            crowd.others[0].result(20)
    assert seen == [1.0]


def test_a_leader_that_is_interrupted_leaves_the_others_to_the_next(doubles: Server, turns: Turns) -> None:
    with Crowd(doubles, turns) as crowd:
        interrupted = []

        def problem(rows: np.ndarray) -> Exception | None:
            if len(rows) > 1 and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            return None

        doubles.problem = problem
        for value in (1, 2, 3):
            crowd.add(row(value))
        crowd.go()
        ends = [other.exception(20) for other in crowd.others]
    assert sorted(type(end) for end in ends if end is not None) == [KeyboardInterrupt]
    assert sum(end is None for end in ends) == 2


def test_a_turn_within_a_turn(doubles: Server, turns: Turns) -> None:
    doubles.open.set()
    with turns.alone(), turns.alone():
        assert np.array_equal(turns.together(doubles.ask, row(1), nothing)[0], row(2))
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(turns.together, doubles.ask, row(1), nothing).result(20)[0], row(2))


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_everybody_gets_their_own(sizes: list[int]) -> None:
    doubles, turns = Server(), Turns(lambda rows: max(1, int((np.cumsum(rows) <= 4).sum())))
    with Crowd(doubles, turns) as crowd:
        wanted = [np.random.default_rng(i).normal(size=(size, 1)) for i, size in enumerate(sizes)]
        for rows in wanted:
            crowd.add(rows)
        crowd.go()
        for rows, other in zip(wanted, crowd.others, strict=True):
            assert np.array_equal(other.result(20)[0], 2 * rows)
    assert sum(doubles.calls) == 1 + sum(sizes)


# With a real server.


def test_threads_of_one_client_share_calls(address: str, heads: dict[str, Head]) -> None:
    x = unit_rows(24, 8)
    calls: list[int] = []
    with Client(address, model="small") as client, ThreadPoolExecutor(24) as pool:
        client.predict(x[:1])
        client._session._batches.clear()  # type: ignore[union-attr] # calls are counted
        exchange = client._session._exchange  # type: ignore[union-attr]

        def slow(rows: np.ndarray, costs: Any) -> np.ndarray:
            calls.append(len(rows))
            if len(calls) == 1:
                waiting(client._calls._turns, 23)
            return exchange(rows, costs)

        client._session._exchange = slow  # type: ignore[union-attr, method-assign]
        found = np.concatenate(list(pool.map(lambda one: client.predict(one[None]), x)))
        stats = client.last_call.stats
    assert calls == [1, 23]
    assert (stats.callers, stats.records, stats.rounds) == (23, 23, 1)
    assert np.abs(found - heads["small"].evaluate(x)).max() <= 1e-3


def test_tasks_of_one_client_share_calls(address: str, heads: dict[str, Head], monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls, predict = unit_rows(40, 8), list[int](), Calls._predict

    def counted(self: Calls, rows: np.ndarray, *more: Any) -> np.ndarray:
        calls.append(len(rows))
        return predict(self, rows, *more)

    monkeypatch.setattr(Calls, "_predict", counted)

    async def use() -> np.ndarray:
        async with AsyncClient(address, model="small") as client:
            await client.predict(x[:1])
            found = await asyncio.gather(*(client.predict(one[None]) for one in x))
            return np.concatenate(found)

    found = asyncio.run(use())
    assert sum(calls) == 41
    assert len(calls) < 41
    assert np.abs(found - heads["small"].evaluate(x)).max() <= 1e-3


def test_one_callers_bad_row_is_not_the_others(address: str) -> None:
    x = unit_rows(8, 8)
    x[3] *= 5
    with Client(address, model="small") as client, ThreadPoolExecutor(8) as pool:
        ends = [f.exception() for f in [pool.submit(client.predict, one[None]) for one in x]]
    assert [isinstance(end, InvalidInput) for end in ends] == [i == 3 for i in range(8)]
