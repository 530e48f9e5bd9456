"""One place of the pool: a queue of jobs, and the worker that does them, replaced when it is lost, hangs or has grown."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from secure_infer.errors import CallFailed, SecureInferError
from secure_infer_server.workers.frames import Header
from secure_infer_server.workers.jobs import Job, raise_error
from secure_infer_server.workers.process import Worker, WorkerLost
from secure_infer_server.workers.settings import WorkerSettings

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds, besides twice its estimate, that a job may go on when nobody waits for it any more
LONGEST = 60.0  # seconds, besides `LONGEST_ESTIMATES` of them, that any job may take
LONGEST_ESTIMATES = 20.0
LEAST_AGE = 20.0  # seconds between two replacements of a worker for its size
_PAUSES = (0.0, 0.1, 0.5, 2.0, 10.0)  # before the next start, after so many losses without an answer in between


@dataclass(eq=False)
class Ticket:
    """A job in the pool, and who waits for it. asked: when, of the loop's clock. waited: seconds until a worker began."""

    job: Job
    answer: asyncio.Future[tuple[Header, list[bytes]]]
    asked: float
    waited: float = 0.0
    tries: int = 0
    slots: set[int] = field(default_factory=set)
    """Where it was tried."""

    def late(self, now: float) -> bool:
        return self.job.deadline is not None and now >= self.job.deadline

    def fail(self, error: SecureInferError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Slot:
    """lost: called with the ticket that a lost worker was at, and those that waited behind it."""

    def __init__(
        self, number: int, settings: WorkerSettings, process: bool, lost: Callable[[Slot, Ticket | None], None]
    ) -> None:
        self.number, self._settings, self._process, self._lost = number, settings, process, lost
        self.queue: deque[Ticket] = deque()
        self.worker: Worker | None = None
        self.running: Ticket | None = None
        self.died = self.replaced = 0  # workers
        self._since = 0.0
        self._limit: asyncio.Timeout | None = None
        self._wake = asyncio.Event()
        self._losses = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    # For the pool.

    def add(self, ticket: Ticket, *, first: bool = False) -> None:
        if first:
            self.queue.appendleft(ticket)
        else:
            self.queue.append(ticket)
        self._wake.set()

    def pending(self) -> float:
        """Seconds of work that wait here, about."""
        waiting = sum(ticket.job.seconds for ticket in self.queue)
        if self.running is not None:
            waiting += max(0.0, self.running.job.seconds - (self._now() - self._since))
        return waiting

    def give_up(self, ticket: Ticket) -> None:
        """Nobody waits for it any more."""
        if ticket in self.queue:
            self.queue.remove(ticket)
        elif self.running is ticket and self.worker is not None and self._limit is not None:
            self.worker.send({"do": "cancel"})
            patience = PATIENCE + 2 * ticket.job.seconds
            self._limit.reschedule(min(self._limit.when() or 1e18, self._now() + patience))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.worker is not None:
            await self.worker.close()

    # Its own.

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception:
                log.exception("worker %d: an unexpected fault of its place", self.number)
                await asyncio.sleep(1.0)

    async def _step(self) -> None:
        if self.worker is None or self.worker.lost:
            await self._start()
            return
        ticket = await self._next(self.worker)
        if ticket is not None:
            await self._do(self.worker, ticket)
            await self._replace_grown(self.worker)

    async def _start(self) -> None:
        if self.worker is not None:
            await self.worker.close()
            self.worker = None
            self.died += 1
            log.error("worker %d ended; starting another", self.number)
            self._lost(self, None)
        await asyncio.sleep(_PAUSES[min(self._losses, len(_PAUSES) - 1)])
        try:
            self.worker = await self._new()
        except WorkerLost:
            self._losses += 1
            log.error("worker %d did not start", self.number)

    async def _new(self) -> Worker:
        made = await Worker.start(f"secure-infer-worker-{self.number}", process=self._process)
        made.when_lost = self._wake.set
        return made

    async def _next(self, worker: Worker) -> Ticket | None:
        """What to do next; None when the worker is lost."""
        while not worker.lost:
            while self.queue:
                ticket = self.queue.popleft()
                if ticket.answer.done():
                    continue
                if not ticket.late(self._now()):
                    return ticket
                ticket.fail(CallFailed("the deadline passed while the call waited for a worker"))
            self._wake.clear()
            await self._wake.wait()
        return None

    async def _do(self, worker: Worker, ticket: Ticket) -> None:
        self.running, self._since = ticket, self._now()
        ticket.waited = self._since - ticket.asked
        ticket.tries += 1
        ticket.slots.add(self.number)
        try:
            async with asyncio.timeout(LONGEST + LONGEST_ESTIMATES * ticket.job.seconds) as self._limit:
                answer = await worker.run(ticket.job, self._settings.key_bytes)
        except WorkerLost:
            self._losses += 1
            self._lost(self, ticket)
        except TimeoutError:
            ticket.fail(CallFailed("the evaluation took longer than this server allows, and was ended"))
            worker.kill()
            worker.lost = True
        except Exception as problem:  # the job's own frame could not be made
            if not ticket.answer.done():
                ticket.answer.set_exception(problem)
        else:
            self._losses = 0
            self._settle(ticket, answer)
        finally:
            self.running = self._limit = None

    @staticmethod
    def _settle(ticket: Ticket, answer: tuple[Header, list[bytes]]) -> None:
        if ticket.answer.done():
            return
        try:
            raise_error(answer[0])
        except SecureInferError as error:
            ticket.fail(error)
        else:
            ticket.answer.set_result(answer)

    async def _replace_grown(self, worker: Worker) -> None:
        """Another worker, ready before this one goes, when it has grown or done enough."""
        grown = worker.resident > self._settings.memory and self._now() - worker.started > LEAST_AGE
        if worker.lost or not (grown or worker.jobs >= self._settings.requests):
            return
        log.info("worker %d is replaced after %d jobs, at %d MiB", self.number, worker.jobs, worker.resident >> 20)
        try:
            self.worker = await self._new()
        except WorkerLost:
            return
        self.replaced += 1
        worker.when_lost = lambda: None
        await worker.close()
