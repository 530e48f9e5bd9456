"""Room is bounded and shared: who comes to a full server is refused at once, and a greedy caller gives way to a modest one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import ResourceExhausted
from secure_infer_server import shares
from secure_infer_server.turns import Turns
from secure_infer_server.workers.jobs import Job, OfferName
from secure_infer_server.workers.pool import Pool
from secure_infer_server.workers.settings import WorkerSettings
from secure_infer_server.workers.slot import Ticket

callers = st.sampled_from("abcd")
PIECE = 2.0**-10  # seconds, exact in sums


@given(st.lists(callers, max_size=60))
def test_whoever_keeps_to_a_share_is_taken_and_nobody_holds_more_than_one_for_long(asking: list[str]) -> None:
    waiting: dict[str, float] = {}
    for caller in asking:
        had = waiting.get(caller, 0.0)
        share = 8 / len(waiting.keys() | {caller})
        taken = shares.may_wait(waiting, caller, 1, 8)
        if had + 1 <= share:
            assert taken
        if not taken:
            continue
        if sum(waiting.values()) + 1 > 8:
            greedy = shares.greediest(waiting)
            assert greedy != caller
            waiting[greedy] -= 1
            waiting = {name: held for name, held in waiting.items() if held}
        waiting[caller] = had + 1
        assert sum(waiting.values()) <= 8


def test_a_refusal_says_when_to_come_back() -> None:
    refusal = shares.refused("full", 0.3)
    assert refusal.details == {"again": "shortly", "retry_after_ms": "300"}
    assert refusal.status == "RESOURCE_EXHAUSTED"


def played(play: Callable[[Turns], Awaitable[None]], room: float = 10 * PIECE) -> None:
    asyncio.run(play(Turns(room, learn=0.0)))  # type: ignore[arg-type]


async def ask(turns: Turns, caller: str, order: list[str]) -> None:
    await turns.take(caller, PIECE)
    order.append(caller)
    await asyncio.sleep(0)
    turns.give()


def test_callers_take_turns() -> None:
    async def play(turns: Turns) -> None:
        order: list[str] = []
        await asyncio.gather(*(ask(turns, caller, order) for caller in "aaaabb"))
        assert order == ["a", "a", "b", "a", "b", "a"]
        assert turns.has_room("a", 99.0)

    played(play)


def test_a_flood_is_refused_and_does_not_keep_others_out() -> None:
    async def play(turns: Turns) -> None:
        order: list[str] = []
        flood = [asyncio.ensure_future(ask(turns, "flood", order)) for _ in range(50)]
        await asyncio.sleep(0)
        assert not turns.has_room("flood", PIECE)
        with pytest.raises(ResourceExhausted, match="ask again in"):
            turns.require_room("flood", PIECE)
        modest = [asyncio.ensure_future(ask(turns, "modest", order)) for _ in range(5)]
        found = await asyncio.gather(*flood, return_exceptions=True)
        await asyncio.gather(*modest)
        assert order.count("modest") == 5
        assert sum(isinstance(error, ResourceExhausted) for error in found) == 50 - order.count("flood") == 44
        assert order.index("modest") == 2  # not behind the flood

    played(play)


def test_a_call_that_has_begun_is_not_turned_away() -> None:
    async def play(turns: Turns) -> None:
        order: list[str] = []
        await turns.take("first", PIECE)
        flood = [asyncio.ensure_future(ask(turns, "flood", order)) for _ in range(20)]
        await asyncio.sleep(0)
        again = asyncio.ensure_future(turns.take("first", 0.5, accepted=True))
        await asyncio.sleep(0)
        turns.give()
        await again
        turns.give()
        await asyncio.gather(*flood, return_exceptions=True)

    played(play)


def test_whoever_leaves_the_queue_leaves_room() -> None:
    async def play(turns: Turns) -> None:
        order: list[str] = []
        await turns.take("first", PIECE)
        waiting = [asyncio.ensure_future(ask(turns, "a", order)) for _ in range(10)]
        await asyncio.sleep(0)
        assert not turns.has_room("a", PIECE)
        for each in waiting[:5]:
            each.cancel()
        await asyncio.gather(*waiting[:5], return_exceptions=True)
        assert turns.has_room("a", PIECE)
        turns.give()
        waiting[5].cancel()  # before, at or after its turn
        await asyncio.gather(*waiting, return_exceptions=True)
        assert 4 <= len(order) <= 5
        assert turns.has_room("a", 99.0)

    played(play)


class Stalled:
    """A worker's place where nothing moves."""

    number, worker, running = 0, None, None

    def __init__(self) -> None:
        self.queue: deque[Ticket] = deque()

    def pending(self) -> float:
        return sum(ticket.job.seconds for ticket in self.queue)

    def add(self, ticket: Ticket, *, first: bool) -> None:
        self.queue.append(ticket)

    def give_up(self, ticket: Ticket) -> None:
        if ticket in self.queue:
            self.queue.remove(ticket)


def test_a_full_queue_of_workers_is_shared_as_well() -> None:
    async def play() -> None:
        pool, place = Pool(WorkerSettings(count=1, queue=4)), Stalled()
        pool._slots = [place]  # type: ignore[list-item]

        def run(caller: str) -> asyncio.Future[object]:
            job = Job(OfferName("m", "p"), lambda: b"", None, 0.1, lambda: ({}, []), caller=caller)
            return asyncio.ensure_future(pool.run(job))  # type: ignore[arg-type]

        flood = [run("flood") for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in flood] == [False] * 4 + [True] * 2
        with pytest.raises(ResourceExhausted, match="4 requests wait already"):
            pool.require_room("flood")
        modest = [run("modest") for _ in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert [ticket.job.caller for ticket in place.queue] == ["flood", "flood", "modest", "modest"]
        assert [task.done() for task in flood] == [False] * 2 + [True] * 4  # the newest went
        assert [task.done() for task in modest] == [False, False, True]
        for task in (*flood, *modest):
            task.cancel()
        await asyncio.gather(*flood, *modest, return_exceptions=True)

    asyncio.run(play())
