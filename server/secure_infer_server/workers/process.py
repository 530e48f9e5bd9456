"""One worker as the server sees it: a process, or a thread of the server's own, at the other end of a socket."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess

from secure_infer_server import logs
from secure_infer_server.workers import worker
from secure_infer_server.workers.frames import Connection, Header, Part
from secure_infer_server.workers.jobs import Held, Job, OfferName

START_SECONDS = 60.0
END_SECONDS = 2.0
_SOCKET_BUFFER = 1 << 20
_STARTING = ThreadPoolExecutor(2, "worker-start")
"""Not the loop's own threads, which may all be waiting for a worker."""


class WorkerLost(Exception):
    """The worker's process ended, or never began; what it was doing is lost."""


class Worker:
    """Made by `start`. For one event loop; does one job at a time."""

    def __init__(self, process: BaseProcess | None) -> None:
        self._process = process
        self._inbox: asyncio.Queue[tuple[Header, list[bytes]] | None] = asyncio.Queue()
        self.connection = Connection(lambda header, parts: self._inbox.put_nowait((header, parts)), self._gone)
        self._offers: set[OfferName] = set()
        self._withdrawn: set[OfferName] = set()
        self._held: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.when_lost: Callable[[], None] = lambda: None
        self.lost = False
        self.pid = 0
        self.jobs = 0
        self.resident = 0
        self.started = asyncio.get_running_loop().time()

    @classmethod
    async def start(cls, name: str, *, process: bool, background: bool = False) -> Worker:
        """A new worker, ready. process: false for a thread. background: other work goes first.

        Raises WorkerLost when it does not get ready.
        """
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # a query at once, where the system allows it
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        child: BaseProcess | None = None
        if process:
            context = multiprocessing.get_context("spawn")
            given = (theirs, background, logs.chosen())
            child = context.Process(target=worker.main, args=given, name=name, daemon=True)
            try:
                await asyncio.get_running_loop().run_in_executor(_STARTING, child.start)
            except OSError as error:
                ours.close()
                raise WorkerLost from error
            finally:
                theirs.close()
        else:
            threading.Thread(target=worker.serve, args=(theirs,), name=name, daemon=True).start()
        ours.setblocking(False)
        made = cls(child)
        await asyncio.get_running_loop().create_connection(lambda: made.connection, sock=ours)
        try:
            async with asyncio.timeout(START_SECONDS):
                header, _ = await made.receive()
        except BaseException as error:
            made.kill()
            if isinstance(error, TimeoutError):
                raise WorkerLost from error
            raise
        made.pid = header["ready"]
        return made

    # Jobs.

    def holds(self, name: tuple[str, str]) -> bool:
        """Whether it holds that client's keys for that plan."""
        return name in self._held

    def provide(self, offer: OfferName, recipe: Callable[[], bytes], keys: Held | None, most: int) -> None:
        """Send what a job needs and the worker does not hold yet; it keeps keys of at most `most` bytes."""
        for gone in self._withdrawn - {offer}:
            self.send({"do": "withdraw", "model": gone.model, "plan": gone.plan})
            self._offers.discard(gone)
        self._withdrawn &= {offer}
        if offer not in self._offers:
            self.send({"do": "offer", "model": offer.model, "plan": offer.plan}, [recipe()])
            self._offers.add(offer)
        if keys is None:
            return
        if keys.name not in self._held:
            self.send({"do": "keys", "plan": keys.plan, "key": keys.key}, [keys.data])
        self._hold(keys, most)

    def withdraw(self, offers: Set[OfferName]) -> None:
        """No new calls ask for these; with its next job the worker lets go of them. Nothing is sent while it is at work."""
        self._withdrawn |= offers & self._offers

    async def run(self, job: Job, most: int) -> tuple[Header, list[bytes]]:
        """The answer to a job. Raises WorkerLost."""
        self.provide(job.offer, job.recipe, job.keys, most)
        header, parts = job.make()
        self.send(header, parts)
        answer, products = await self.receive()
        self.jobs += 1
        self.resident = answer.get("resident", 0)
        if job.holds is not None and "error" not in answer:
            self._hold(job.holds, most)
        return answer, products

    def _hold(self, keys: Held, most: int) -> None:
        # Loaded, keys take a few times what they take to send: a residue has 8 bytes, and seeds are expanded.
        self._held[keys.name] = LOADED * len(keys.data)
        self._held.move_to_end(keys.name)
        while sum(self._held.values()) > most and len(self._held) > 1:
            (plan, key), _ = self._held.popitem(last=False)
            self.send({"do": "forget", "plan": plan, "key": key})

    # Frames.

    def send(self, header: Mapping[str, object], parts: Sequence[Part] = ()) -> None:
        self.connection.send(header, parts)

    async def flushed(self) -> None:
        """Wait until the worker keeps up with what was sent; raises WorkerLost."""
        await self.connection.flushed()
        if self.lost:
            raise WorkerLost

    async def receive(self) -> tuple[Header, list[bytes]]:
        """Its next frame; raises WorkerLost."""
        frame = None if self.lost and self._inbox.empty() else await self._inbox.get()
        if frame is None:
            raise WorkerLost
        return frame

    def _gone(self) -> None:
        self.lost = True
        self._inbox.put_nowait(None)
        self.when_lost()

    # The end.

    def kill(self) -> None:
        """End it at once. A thread cannot be: it ends when it looks at its socket again."""
        if self._process is not None and self._process.pid is not None:
            self._process.kill()
        self.connection.close()

    async def close(self) -> None:
        """Let it end by itself, or make it."""
        self.connection.close()
        process = self._process
        if process is not None:
            await asyncio.to_thread(process.join, END_SECONDS)
            if process.exitcode is None:
                process.kill()
                await asyncio.to_thread(process.join, END_SECONDS)


LOADED = 4
"""Bytes of loaded keys for a byte of uploaded ones, about."""
