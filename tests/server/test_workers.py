"""The parts of the worker pool: frames, placement, queues, deadlines, losses; with workers that do as they are told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from secure_infer.ckks import keymaterial
from secure_infer.errors import CallFailed, InternalFault, MalformedRequest, ResourceExhausted, SettingsError
from secure_infer_client.keys import SecretKey
from secure_infer_server.models.served import ServedModel
from secure_infer_server.settings import Policy
from secure_infer_server.workers import frames, slot, worker
from secure_infer_server.workers.frames import Connection, Wire
from secure_infer_server.workers.jobs import Held, Job, OfferName, error_header, group
from secure_infer_server.workers.material import Material
from secure_infer_server.workers.placement import Placement, home_order
from secure_infer_server.workers.pool import Pool
from secure_infer_server.workers.process import Worker, WorkerLost
from secure_infer_server.workers.settings import WorkerSettings
from shared import linear_head

# Frames.


class Line:
    """A worker's end and the server's, connected."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.sock, self.wire = ours, Wire(theirs)
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.connection = Connection(lambda header, parts: self.frames.put_nowait((header, parts)), self.lost.set)

    async def connect(self) -> Line:
        self.sock.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self.connection, sock=self.sock)
        return self


def test_frames_carry_headers_and_parts_both_ways() -> None:
    async def exchange() -> None:
        line = await Line().connect()
        parts = [b"", b"abc", bytes(1 << 20)]
        sent = [({"a": [number, "b"]}, parts if number % 2 else [bytes([number])] * number) for number in range(12)]
        sending = asyncio.create_task(asyncio.to_thread(lambda: [line.wire.send(*each) for each in sent]))
        assert [await line.frames.get() for _ in sent] == sent
        await sending
        assert not line.wire.waiting()
        line.connection.send({"x": None}, [memoryview(b"12"), b"3", bytes(3 << 20)])
        assert await asyncio.to_thread(line.wire.receive) == ({"x": None}, [b"12", b"3", bytes(3 << 20)])
        await line.connection.flushed()
        line.connection.close()
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(line.wire.receive)
        await line.lost.wait()
        line.connection.send({"x": None})  # to nobody

    asyncio.run(exchange())


def test_the_server_hangs_up_on_a_worker_that_talks_nonsense() -> None:
    async def exchange(data: bytes) -> None:
        line = await Line().connect()
        line.wire._sock.sendall(data)
        await asyncio.wait_for(line.lost.wait(), 5)
        assert line.frames.empty()

    start = frames._LENGTHS.pack
    for data in (
        b"\xff" * 12,
        start(2, 0) + b"{}",
        start(4, 0) + b"nope",
        start(13, 2) + b'{"parts":[3]}ab',
        start(2, 0) + b"[]",
    ):
        asyncio.run(exchange(data))


@pytest.mark.parametrize("start", [b"\xff" * 12, b"\x02\0\0\0" + b"\xff" * 8])
def test_frames_out_of_bounds_are_refused_before_anything_is_read(start: bytes) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(start)
    with pytest.raises(ConnectionError, match="out of bounds"):
        Wire(theirs).receive()


def test_a_frame_that_does_not_add_up_is_refused() -> None:
    ours, theirs = socket.socketpair()
    text = b'{"parts":[3]}'
    ours.sendall(frames._LENGTHS.pack(len(text), 2) + text + b"ab")
    with pytest.raises(ConnectionError, match="add up"):
        Wire(theirs).receive()


def test_groups() -> None:
    assert group([2, 0, 1], [b"a", b"b", b"c", b"d"]) == [[b"a", b"b"], [], [b"c"]]


# Settings and material.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": -1}, "--workers"),
        ({"queue": 0}, "--queue"),
        ({"memory": 1}, "256 MiB"),
        ({"requests": 0}, "requests"),
    ],
)
def test_settings_out_of_range(changes: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        WorkerSettings(**changes)


def test_the_public_key_is_read_from_the_start_of_the_material() -> None:
    plan = next(iter(ServedModel.compile("m", linear_head(8, 3), Policy()).offered.values())).plan
    data = SecretKey(plan.parameters).upload(plan).data
    expected, found = keymaterial.parse(plan, data).public, Material.of(plan, data).public
    assert expected is not None
    assert found is not None
    assert np.array_equal(found[0], expected[0])
    assert found[1] == expected[1]


# Placement.

KEYS = [bytes([number]) * 32 for number in range(100)]


def test_clients_have_homes_and_a_lost_worker_moves_its_own_alone() -> None:
    everywhere = dict.fromkeys(range(4), 0.0)
    homes = {key: Placement().choose(key, 1000, everywhere, set(), 4) for key in KEYS}
    assert {sum(home == number for home in homes.values()) > 10 for number in range(4)} == {True}
    left = {number: 0.0 for number in everywhere if number != 2}
    moved = {key: Placement().choose(key, 1000, left, set(), 4) for key in KEYS}
    assert {key for key in KEYS if moved[key] != homes[key]} == {key for key in KEYS if homes[key] == 2}


def test_waiting_at_home_is_worth_loading_elsewhere_in_the_end() -> None:
    key, size, placement = KEYS[0], 4_000_000, Placement()  # a tenth of a second to load
    home, other = home_order(key, 2)
    pending = {home: 0.03, other: 0.0}
    chosen = [placement.choose(key, size, pending, {home}, 2) for _ in range(5)]
    assert chosen == [home, home, home, other, home]  # that it holds the keys now is for the caller to say
    assert placement.choose(key, size, {home: 0.3, other: 0.0}, {home}, 2) == other
    assert Placement().choose(key, size, pending, {home, other}, 2) == other


def test_without_keys_the_freest_worker_is_taken() -> None:
    assert Placement().choose(b"", 0, {0: 1.0, 1: 0.5, 2: 2.0}, set(), 3) == 1


# The pool.


class Puppet:
    """A worker that answers when `behaviour` returns."""

    def __init__(self, behaviour: Callable[[Job], Awaitable[Any]]) -> None:
        self._behaviour = behaviour
        self.lost, self.pid, self.jobs, self.resident, self.started = False, 1, 0, 0, 0.0
        self.when_lost: Callable[[], None] = lambda: None
        self.sent: list[dict[str, Any]] = []
        self.closed = self.killed = False
        self.held: set[tuple[str, str]] = set()

    async def run(self, job: Job, most: int) -> Any:
        self.jobs += 1
        if job.keys is not None:
            self.held.add(job.keys.name)
        return await self._behaviour(job)

    def holds(self, name: tuple[str, str]) -> bool:
        return name in self.held

    def send(self, header: dict[str, Any]) -> None:
        self.sent.append(header)

    def kill(self) -> None:
        self.killed = True

    async def close(self) -> None:
        self.closed = True


class Stage:
    """A pool of puppets. made: every one, in order."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, behaviour: Callable[[Job], Awaitable[Any]], **settings: int
    ) -> None:
        self.made: list[Puppet] = []

        async def start(name: str, *, process: bool, background: bool = False) -> Puppet:
            self.made.append(Puppet(behaviour))
            return self.made[-1]

        monkeypatch.setattr(Worker, "start", start)
        monkeypatch.setattr(slot, "_PAUSES", (0.0,))
        self.pool = Pool(WorkerSettings(**({"count": 1} | settings)))


OFFER = OfferName("m", "p")


def job(seconds: float = 0.01, key: str = "", deadline: float | None = None) -> Job:
    keys = Held("p", key, bytes(100)) if key else None
    return Job(OFFER, lambda: b"", keys, seconds, lambda: ({"do": "infer"}, []), deadline)


ANSWER: Any = ({"ok": 1}, [])


async def at_once(_: Job) -> Any:
    return ANSWER


def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        go = asyncio.Event()

        async def later(_: Job) -> Any:
            await go.wait()
            return ANSWER

        pool = Stage(monkeypatch, later, queue=3).pool
        running = [asyncio.create_task(pool.run(job())) for _ in range(3)]
        await asyncio.sleep(0.01)  # one is at the worker
        running.append(asyncio.create_task(pool.run(job())))
        await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted, match="3 requests wait already") as refused:
            await pool.run(job())
        assert refused.value.details["again"] == "shortly"
        go.set()
        assert await asyncio.gather(*running) == [ANSWER] * 4
        assert await pool.run(job()) == ANSWER
        await pool.close()

    asyncio.run(play())


def test_what_nobody_waits_for_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        go, begun = asyncio.Event(), []

        async def later(each: Job) -> Any:
            begun.append(each)
            await go.wait()
            return ANSWER

        pool = Stage(monkeypatch, later).pool
        now = asyncio.get_running_loop().time()
        first, gone, late = job(), job(), job(deadline=now + 0.03)
        tasks = [asyncio.create_task(pool.run(each)) for each in (first, gone, late)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        assert pool.waiting() == 1
        go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert begun == [first]
        assert (found[0], type(found[1]), type(found[2])) == (ANSWER, asyncio.CancelledError, CallFailed)
        await pool.close()

    asyncio.run(play())


def test_a_worker_at_work_for_nobody_is_told_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        monkeypatch.setattr(slot, "PATIENCE", 0.05)
        calls = 0

        async def hang_at_first(_: Job) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                await asyncio.sleep(60)
            return ANSWER

        stage = Stage(monkeypatch, hang_at_first)
        task = asyncio.create_task(stage.pool.run(job()))
        await asyncio.sleep(0.01)
        task.cancel()
        assert await stage.pool.run(job()) == ANSWER
        assert stage.made[0].sent == [{"do": "cancel"}]
        assert stage.made[0].killed
        assert len(stage.made) == 2
        await stage.pool.close()

    asyncio.run(play())


def test_a_job_that_takes_too_long_is_ended_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        monkeypatch.setattr(slot, "LONGEST", 0.02)

        async def hang(_: Job) -> Any:
            await asyncio.sleep(60)

        stage = Stage(monkeypatch, hang)
        with pytest.raises(CallFailed, match="longer than this server allows"):
            await stage.pool.run(job(seconds=0.001))
        assert stage.made[0].jobs == 1
        assert stage.made[0].killed
        await stage.pool.close()

    asyncio.run(play())


@pytest.mark.parametrize("count", [1, 2])
def test_a_lost_worker_costs_one_more_try(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    async def play() -> None:
        tries = 0

        async def die_at_first(_: Job) -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                stage.made[0].lost = True
                raise WorkerLost
            return ANSWER

        stage = Stage(monkeypatch, die_at_first, count=count)
        stage.pool.start()
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(stage.pool.run(job())) for _ in range(5)]
        assert await asyncio.gather(*others) == [ANSWER] * 5
        assert tries == 6
        await stage.pool.close()
        assert all(puppet.closed for puppet in stage.made)

    asyncio.run(play())


def test_a_request_that_workers_die_of_fails_after_two(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async def die(each: Job) -> Any:
            if each.seconds == 0.01:
                for puppet in stage.made:
                    puppet.lost = True
                raise WorkerLost
            return ANSWER

        stage = Stage(monkeypatch, die, count=2)
        with pytest.raises(InternalFault, match="and so did the next one"):
            await stage.pool.run(job())
        assert sum(puppet.jobs for puppet in stage.made) == 2
        assert await stage.pool.run(job(seconds=0.5)) == ANSWER
        await stage.pool.close()

    asyncio.run(play())


def test_there_is_no_second_try_without_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async def die(_: Job) -> Any:
            stage.made[-1].lost = True
            raise WorkerLost

        stage = Stage(monkeypatch, die)
        now = asyncio.get_running_loop().time()
        with pytest.raises(InternalFault, match="no time for another"):
            await stage.pool.run(job(seconds=5.0, deadline=now + 1.0))
        await stage.pool.close()

    asyncio.run(play())


def test_what_the_worker_says_is_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async def refuse(_: Job) -> Any:
            return error_header(MalformedRequest("got 1, expected 2", got=1)), []

        stage = Stage(monkeypatch, refuse)
        with pytest.raises(MalformedRequest, match="got 1, expected 2") as caught:
            await stage.pool.run(job())
        assert caught.value.details == {"got": "1"}
        await stage.pool.close()

    asyncio.run(play())


def test_workers_are_replaced_after_so_many_jobs_or_when_they_have_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        stage = Stage(monkeypatch, at_once, requests=3)
        for _ in range(7):
            assert await stage.pool.run(job()) == ANSWER
        await asyncio.sleep(0.01)
        assert [puppet.jobs for puppet in stage.made] == [3, 3, 1]
        assert [puppet.closed for puppet in stage.made] == [True, True, False]
        monkeypatch.setattr(slot, "LEAST_AGE", 0.0)
        stage.made[-1].resident = 3 << 30
        await stage.pool.run(job())
        await asyncio.sleep(0.01)
        assert stage.made[2].closed
        assert len(stage.made) == 4
        await stage.pool.close()

    asyncio.run(play())


def test_a_client_stays_where_its_keys_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        stage = Stage(monkeypatch, at_once, count=2)
        stage.pool.start()
        await asyncio.sleep(0.01)
        for _ in range(3):
            for number in range(20):
                await stage.pool.run(job(key=f"{number:02x}" * 32))
        first, second = (puppet.held for puppet in stage.made)
        assert not first & second
        assert len(first) + len(second) == 20
        await stage.pool.close()

    asyncio.run(play())


# A worker on a thread, with its real loop.


def test_a_worker_answers_faults_with_an_id_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.serve, args=(theirs,))
    thread.start()
    wire = Wire(ours)
    assert "ready" in wire.receive()[0]
    for _ in range(2):
        wire.send({"do": "infer", "model": "never", "plan": "offered", "key": "", "queries": [1]}, [b"patient"])
        header, parts = wire.receive()
        assert header["error"] == "INTERNAL_FAULT"
        assert "under id" in header["message"]
        assert not parts
        wire.send({"do": "cancel"})  # too late: means nothing
    ours.close()
    thread.join(5)
    assert not thread.is_alive()
