"""One server process: ports, credentials, health, and an orderly end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from secure_infer.ckks.plan import MAX_ANSWER_BYTES
from secure_infer.errors import SettingsError
from secure_infer_server import aioserver, rpc, servicer
from secure_infer_server.admin.books import Books
from secure_infer_server.admin.service import SERVICE as ADMIN
from secure_infer_server.admin.service import AdminCalls
from secure_infer_server.admin.servicer import AdminServicer
from secure_infer_server.admin.versions import WatchedModels
from secure_infer_server.batches import Batches
from secure_infer_server.blinds import BlindPool
from secure_infer_server.callers.credentials import InForce, server_credentials
from secure_infer_server.clients import Clients
from secure_infer_server.dataplane import Dataplane
from secure_infer_server.front import Front
from secure_infer_server.gate import Gate, OpenGate
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.keys.servicer import SERVICE as KEYS
from secure_infer_server.keys.servicer import KeyServicer
from secure_infer_server.listener import Listener
from secure_infer_server.messages import Careful
from secure_infer_server.models.model import digests, require_messages_fit
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import ServedModel
from secure_infer_server.observe import reflection
from secure_infer_server.observe.calls import Observer, Watch
from secure_infer_server.observe.gate import NotingGate
from secure_infer_server.observe.health import LIVENESS, READINESS, STATUS
from secure_infer_server.open_inference.servicer import SERVICE as OPEN_INFERENCE
from secure_infer_server.open_inference.servicer import OpenInferenceServicer
from secure_infer_server.process import Ending, Underway, adrain, bound, taken
from secure_infer_server.servicer import InferenceServicer, ModelServicer
from secure_infer_server.settings import Settings
from secure_infer_server.workers.lane import Lane
from secure_infer_server.workers.pool import Pool

SERVICES = (servicer.INFERENCE, servicer.MODELS, KEYS)
"""Of every server."""
CONCURRENT_CALLS = 2048  # over all connections; an idle one costs a few kilobytes
CONCURRENT_STREAMS = 100  # of one connection; more wait at the client
UNSEEN, UNSEEN_MOST = 128, 192
"""Calls of one method that came and that the event loop has not looked at yet: gRPC hands it one of each method in a turn. Beyond
the first figure gRPC cancels some of those that come, beyond the second all, where Python would not even get round to refusing
them; its status for that is CANCELLED, and no option changes it. One connection cannot bring that about, and methods do not take
each other's room: health checks go on."""
WINDOW = 4 << 20  # bytes that a stream may send before they are read: 300 Mbit/s at 100 ms
LIVE_SECONDS = 10.0
TELL_SECONDS = 0.5
LEAST_MESSAGE = 2 << 20
_SLACK = 64 << 10


class App:
    """A configured server. `start` listens, `heed_signals` and `wait` serve until SIGTERM or SIGINT, `stop` drains.

    Calls are served by an event loop on a thread of its own. gate: what every call passes; None: one that tells callers
    apart by their certificates, where they have to have some. observers: are told of every call. books: of the gate; None: no
    administrative calls.
    """

    def __init__(
        self,
        settings: Settings,
        gate: Gate | None = None,
        observers: Sequence[Observer] = (),
        books: Books | None = None,
    ) -> None:
        self.settings, self._books = settings, books
        _require_free(settings)  # now, and not after planning
        self.registry, self._models = Registry.watched(settings)
        self._limit = max(LEAST_MESSAGE, *(model.message_bytes for model in self.registry.models()))
        self.blinds = BlindPool(settings.blind_bytes, settings.blinds_per_key)
        certified = settings.tls is not None and settings.tls.client_ca is not None
        self._gate = NotingGate(gate or (GuardedGate(GuardSettings()) if certified else OpenGate()))
        self._underway = Underway()
        self._watch = Watch(self._underway, *observers)
        self.registry.listen(self._admit)
        self._loop = asyncio.new_event_loop()
        pool, told_apart = Pool(settings.workers), certified or self._gate.takes_tokens
        backend = settings.keys.open(settings.key_bytes, os.environ, told_apart=told_apart)
        self.front = Front(
            Dataplane(self.registry, self.blinds),
            Batches(self.registry, settings.batches, settings.batch_bytes),
            self.blinds,
            pool,
            Lane(settings.workers),
            Clients(self.registry, self.blinds, pool, backend, settings.key_bytes, self._loop),
        )
        self.registry.listen(self.front.know)
        self._thread = threading.Thread(target=self._serve, name="event-loop", daemon=True)
        self._started: Future[str] = Future()
        self._ending = Ending()
        self.certificate = InForce()
        self._stopping: asyncio.Event | None = None

    def start(self) -> str:
        """Listen and serve; returns "HOST:PORT". Raises SettingsError when the address cannot be had."""
        self.blinds.start()
        self.front.clients.vault.start()
        self._thread.start()
        try:
            address = self._started.result()
        except SettingsError:
            self.blinds.close()
            self.front.clients.vault.close()
            raise
        self._models.start()
        return address

    def heed_signals(self) -> None:
        """As `Ending.heed_signals`."""
        self._ending.heed_signals()

    def wait(self) -> None:
        """Serve until a signal, then drain."""
        self._ending.wait()
        self.stop()

    def stop(self) -> None:
        """Tell health checks, let calls under way end, for some seconds; then end the workers."""
        self._models.close()
        if self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            # In pieces, so that a second signal is heeded.
            while self._thread.is_alive():
                self._thread.join(0.2)

    @property
    def ready(self) -> bool:
        """Whether calls are taken: from the start on, until calls under way are all that is left; not while the gate admits
        none."""
        up = self._started.done() and self._started.exception() is None
        return up and self._stopping is not None and not self._stopping.is_set() and self._gate.admits

    def alive(self, patience: float = LIVE_SECONDS) -> bool:
        """Whether the event loop gets round to something within those seconds; true of one that does not run yet."""
        turned = threading.Event()
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it ends just now
                self._loop.call_soon_threadsafe(turned.set)
                return turned.wait(patience)
        return True

    def _admit(self, models: Sequence[ServedModel]) -> None:
        """Before these versions can be asked for, and after others no longer can. Raises SettingsError."""
        require_messages_fit(models, self._limit)
        self._gate.serve(digests(models))

    # On the event loop's thread.

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        services = self._services()
        status = health.aio.HealthServicer()
        try:
            listener = Listener(lambda again: self._bound(status, services, again), self.settings.drain)
            address = await listener.start()
        except BaseException as problem:
            self._started.set_exception(problem)
            return
        names, told = ("", READINESS, *services), self._gate.admits
        await status.set(LIVENESS, STATUS[True])
        await _tell(status, names, told)
        self.front.start()
        self._started.set_result(address)
        while not await _within(self._stopping, TELL_SECONDS):
            if self.ready is not told:
                told = self.ready
                await _tell(status, names, told)
        await _tell(status, names, False)
        await asyncio.to_thread(self.blinds.close)  # requests that are still under way make their own
        await adrain(await listener.release(), self._underway, self.settings.drain)
        await self.front.close()
        await asyncio.to_thread(self.front.clients.vault.close)

    def _services(self) -> dict[str, list[rpc.Method]]:
        """Methods by service."""
        inference = InferenceServicer(self.front, self._gate, plaintext_baseline=self.settings.plaintext_baseline)
        models = ModelServicer(self.front.dataplane, self._gate)
        keys = KeyServicer(self.front.clients.calls, self._gate)
        found = dict(zip(SERVICES, (inference.methods(), models.methods(), keys.methods()), strict=True))
        if self._books is not None:
            calls = AdminCalls(self._books, WatchedModels(self.registry, self._models), self.front.clients.vault)
            found[ADMIN] = AdminServicer(calls, self._gate).methods()
        if self.settings.open_inference:
            opened = OpenInferenceServicer(inference, self.registry, self._gate, lambda: self.ready)
            found[OPEN_INFERENCE] = opened.methods()
        if self.settings.reflection:
            names = (*found, health.SERVICE_NAME, reflection.SERVICE)
            found[reflection.SERVICE] = reflection.Reflection(names, self._gate).methods()
        return found

    def _bound(
        self, status: health.aio.HealthServicer, services: Mapping[str, list[rpc.Method]], again: str | None
    ) -> tuple[grpc.aio.Server, str]:
        """A server that is bound, and where. again: where one was bound before."""
        settings, limit = self.settings, self._limit + _SLACK
        server = aioserver.server(
            maximum_concurrent_rpcs=CONCURRENT_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
                ("grpc.max_concurrent_streams", CONCURRENT_STREAMS),
                ("grpc.server.max_pending_requests", UNSEEN),
                ("grpc.server.max_pending_requests_hard_limit", UNSEEN_MOST),
                # A window of that size, not one found by probing: half the processor time for a query of 400 kB, a tenth
                # less for a small one.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", WINDOW),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", max(limit, MAX_ANSWER_BYTES)),
            ],
        )
        for name, methods in services.items():
            aioserver.add(server, name, rpc.by_method(name, self._gate, methods, self._watch))
        health_pb2_grpc.add_HealthServicer_to_server(status, Careful(server, asynchronous=True))
        tls = settings.tls
        credentials = (
            None if tls is None else server_credentials(tls.certificate, tls.key, tls.client_ca, self.certificate)
        )
        port = settings.port if again is None else int(again.rpartition(":")[2])
        return server, bound(server, settings.host, port, credentials)


async def _tell(status: health.aio.HealthServicer, names: Iterable[str], ready: bool) -> None:
    for name in names:
        await status.set(name, STATUS[ready])


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it comes in that time."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _require_free(settings: Settings) -> None:
    """Raise SettingsError when the address is plainly taken; binding, later, has the last word."""
    if not settings.port:
        return
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError:
        raise SettingsError(taken(f"{settings.host}:{settings.port}")) from None
