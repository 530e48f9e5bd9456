"""Workers for batches, at most one a batch under way: started when needed, kept a while, ended when they idle.

They are apart from the pool: a batch takes seconds, and single queries must not wait behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Set
from contextlib import asynccontextmanager
from typing import Any

from secure_infer_server.batches import Answer, BatchTimes, Event, Progress
from secure_infer_server.workers.figures import WorkerFigures
from secure_infer_server.workers.jobs import Held, OfferName, Recipe, raise_error
from secure_infer_server.workers.process import Worker, WorkerLost
from secure_infer_server.workers.settings import WorkerSettings

IDLE_SECONDS = 60.0
PATIENCE = 5.0  # for a worker to stop that nobody waits for any more


class Lane:
    """For one event loop. How many batches are under way is bounded elsewhere; see `Batches.place`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._endings: dict[Worker, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = self._died = self._replaced = 0

    def figures(self) -> WorkerFigures:
        """For any thread."""
        busy, idle = list(self._busy), list(self._idle)
        resident = sum(worker.resident for worker in busy + idle)
        return WorkerFigures(len(busy) + len(idle), len(busy), 0, self._died, self._replaced, resident)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[BatchCall]:
        """A worker for one batch. One that is not through with it in order is ended."""
        worker = await self._take()
        call = BatchCall(worker, self._settings.key_bytes)
        self._busy.add(worker)
        try:
            yield call
        finally:
            self._busy.discard(worker)
            self._spawn(self._give_back(worker, call))

    def withdraw(self, offers: Set[OfferName]) -> None:
        """As `Worker.withdraw`, of all workers."""
        for worker in (*self._busy, *self._idle):
            worker.withdraw(offers)

    def pids(self) -> list[int]:
        """Process ids of the workers that are at work."""
        return [worker.pid for worker in self._busy]

    async def close(self) -> None:
        for worker in self._busy:
            worker.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ending in self._endings.values():
            ending.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.close() for worker in idle))

    async def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            self._endings.pop(worker).cancel()
            if not worker.lost:
                return worker
            await worker.close()
        self._started += 1
        name = f"secure-infer-batch-{self._started}"
        return await Worker.start(name, process=bool(self._settings.count), background=True)

    async def _give_back(self, worker: Worker, call: BatchCall) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await call.finish()
        except (WorkerLost, TimeoutError):
            worker.kill()
            worker.lost = True  # its connection says so a moment later
        if worker.lost or worker.resident > self._settings.memory or worker.jobs >= self._settings.requests:
            self._died += worker.lost
            self._replaced += not worker.lost
            await worker.close()
            return
        self._idle.append(worker)
        self._endings[worker] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end, worker)

    def _end(self, worker: Worker) -> None:
        self._idle.remove(worker)
        del self._endings[worker]
        self._spawn(worker.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class BatchCall:
    """One batch at one worker: features in, events out, at the same time."""

    def __init__(self, worker: Worker, key_bytes: int) -> None:
        self._worker, self._key_bytes = worker, key_bytes
        self._begun = self._ended = self._answered = False

    def begin(self, offer: OfferName, recipe: Recipe, keys: Held | None, seconds: float) -> None:
        """seconds: that it may take."""
        self._worker.provide(offer, recipe, keys, self._key_bytes)
        header = {"do": "batch", "model": offer.model, "plan": offer.plan, "key": keys.key if keys else ""}
        self._worker.send({**header, "seconds": seconds})
        self._begun = True

    async def add(self, ciphertexts: list[bytes]) -> None:
        """The next features; waits until the worker keeps up. Raises WorkerLost."""
        if not self._answered:
            self._worker.send({"do": "features"}, ciphertexts)
            await self._worker.flushed()

    def end(self) -> None:
        """All features were sent."""
        if not self._ended:
            self._worker.send({"do": "end"})
            self._ended = True

    async def events(self) -> AsyncGenerator[Event, None]:
        """What the worker says, `BatchTimes` last. Raises WorkerLost, and what it says is wrong."""
        while True:
            header, parts = await self._worker.receive()
            if "progress" in header:
                done = header["progress"]
                yield Answer(parts[0], done) if parts else Progress(done)
                continue
            self._close(header.get("resident", 0))
            raise_error(header)
            times = header["times"]
            yield BatchTimes(times["load"], times["evaluate"], times["blind"], times["blinds"])
            return

    async def finish(self) -> None:
        """Have the worker stop, and wait until it has."""
        if not self._begun:
            return
        self.end()
        if not self._answered:
            self._worker.send({"do": "cancel"})
        while not self._answered:
            header, _ = await self._worker.receive()
            if "progress" not in header:
                self._close(header.get("resident", 0))

    def _close(self, resident: int) -> None:
        self._answered = True
        self._worker.jobs += 1
        self._worker.resident = resident
