"""Workers for single queries: a bounded queue over them, clients kept where their keys are, one retry for a lost worker."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Set

from secure_infer.errors import InternalFault, ResourceExhausted
from secure_infer_server import shares
from secure_infer_server.observe import calls
from secure_infer_server.workers.figures import WorkerFigures
from secure_infer_server.workers.frames import Header
from secure_infer_server.workers.jobs import Job, OfferName
from secure_infer_server.workers.placement import Placement
from secure_infer_server.workers.settings import WorkerSettings
from secure_infer_server.workers.slot import Slot, Ticket

log = logging.getLogger(__name__)

THREADS = 2  # instead of processes: one long call leaves a way for others
TRIES = 2


class Pool:
    """Jobs in, answers out; for one event loop. Workers start with the first job, or with `start`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._slots: list[Slot] = []
        self._placement = Placement()

    def start(self) -> None:
        """Start the workers; they get ready while others work."""
        if not self._slots:
            processes = self._settings.count
            for number in range(processes or THREADS):
                self._slots.append(Slot(number, self._settings, bool(processes), self._lost))

    async def close(self) -> None:
        """End all workers; what they are at is lost."""
        await asyncio.gather(*(slot.close() for slot in self._slots))
        for slot in self._slots:
            for ticket in [*slot.queue, *([slot.running] if slot.running else [])]:
                ticket.fail(InternalFault("the server ends"))

    def pids(self) -> list[int]:
        """Process ids of the workers that live, in their order."""
        return [slot.worker.pid for slot in self._slots if slot.worker is not None and not slot.worker.lost]

    def withdraw(self, offers: Set[OfferName]) -> None:
        """As `Worker.withdraw`, of all workers."""
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.withdraw(offers)

    def waiting(self) -> int:
        """Jobs that no worker has begun."""
        return sum(len(slot.queue) for slot in self._slots)

    def figures(self) -> WorkerFigures:
        """For any thread."""
        slots = list(self._slots)
        live = [slot.worker for slot in slots if slot.worker is not None and not slot.worker.lost]
        return WorkerFigures(
            alive=len(live),
            busy=sum(slot.running is not None for slot in slots),
            waiting=self.waiting(),
            died=sum(slot.died for slot in slots),
            replaced=sum(slot.replaced for slot in slots),
            resident=sum(worker.resident for worker in live),
        )

    def require_room(self, caller: str) -> None:
        """Raise ResourceExhausted where `run` would, for a job of that caller's."""
        if self.waiting() < self._settings.queue:  # room for anybody
            return
        if not shares.may_wait(self._waiting_by_caller(), caller, 1, self._settings.queue):
            raise self._full()

    async def run(self, job: Job) -> tuple[Header, list[bytes]]:
        """The answer to a job. A cancelled wait takes it out of the queue, or has its worker stop.

        Raises ResourceExhausted when as many jobs wait as may, at once or when a caller with fewer of them needs the place,
        CallFailed when the job's deadline passes first,
        InternalFault when workers die of it, and what the worker says is wrong.
        """
        self.start()
        self.require_room(job.caller)
        if self.waiting() >= self._settings.queue:
            self._displace(shares.greediest(self._waiting_by_caller()))
        loop = asyncio.get_running_loop()
        ticket = Ticket(job, loop.create_future(), loop.time())
        self._place(ticket)
        try:
            answer = await ticket.answer
            calls.current().stage("queue", ticket.waited)
            return answer
        except asyncio.CancelledError:
            ticket.answer.cancel()
            for slot in self._slots:
                slot.give_up(ticket)
            raise

    def _waiting_by_caller(self) -> Counter[str]:
        return Counter(ticket.job.caller for slot in self._slots for ticket in slot.queue)

    def _full(self) -> ResourceExhausted:
        seconds = sum(slot.pending() for slot in self._slots) / len(self._slots)
        return shares.refused(f"{self._settings.queue} requests wait already", seconds)

    def _displace(self, caller: str) -> None:
        """The newest of a caller's that wait, and were at no worker yet."""
        waiting = [(ticket, slot) for slot in self._slots for ticket in slot.queue if ticket.job.caller == caller]
        ticket, slot = max(waiting, key=lambda each: (-each[0].tries, each[0].asked))
        slot.give_up(ticket)
        ticket.fail(self._full())

    def _place(self, ticket: Ticket, *, first: bool = False) -> None:
        keys = ticket.job.keys or ticket.job.holds
        live = {slot.number: slot for slot in self._slots if slot.worker is not None and not slot.worker.lost}
        able = {number: slot for number, slot in live.items() if number not in ticket.slots} or live
        able = able or {slot.number: slot for slot in self._slots}
        holding = {
            number
            for number, slot in able.items()
            if keys is not None and slot.worker is not None and slot.worker.holds(keys.name)
        }
        chosen = self._placement.choose(
            b"" if keys is None else bytes.fromhex(keys.key),
            0 if keys is None else len(keys.data),
            {number: slot.pending() for number, slot in able.items()},
            holding,
            len(self._slots),
        )
        able[chosen].add(ticket, first=first)

    def _lost(self, slot: Slot, ticket: Ticket | None) -> None:
        """A worker died. What it was at is tried once more, elsewhere if there is an elsewhere; the rest is placed anew."""
        if ticket is not None:
            loop = asyncio.get_running_loop()
            if ticket.tries >= TRIES:
                ticket.fail(
                    InternalFault("a worker died of this request, and so did the next one; it was not answered")
                )
            elif not ticket.answer.done() and not ticket.late(loop.time() + ticket.job.seconds):
                self._place(ticket, first=True)
            else:
                ticket.fail(InternalFault("a worker died of this request, and its deadline leaves no time for another"))
            return
        waiting, slot.queue = list(slot.queue), type(slot.queue)()
        for each in waiting:
            self._place(each)
