"""One server process: ports, credentials, health, and an orderly end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import Future

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from secure_infer.ckks.plan import MAX_ANSWER_BYTES
from secure_infer.errors import SettingsError
from secure_infer_server import rpc, servicer
from secure_infer_server.batches import Batches
from secure_infer_server.blinds import BlindPool
from secure_infer_server.callers.credentials import server_credentials
from secure_infer_server.clients import Clients
from secure_infer_server.dataplane import Dataplane
from secure_infer_server.front import Front
from secure_infer_server.gate import Gate, OpenGate
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.keys.servicer import SERVICE as KEYS
from secure_infer_server.keys.servicer import KeyServicer
from secure_infer_server.process import Ending, bound, taken
from secure_infer_server.registry import Registry
from secure_infer_server.servicer import InferenceServicer, ModelServicer
from secure_infer_server.settings import Settings
from secure_infer_server.workers.lane import Lane
from secure_infer_server.workers.pool import Pool

SERVICES = (servicer.INFERENCE, servicer.MODELS, KEYS)
CONCURRENT_CALLS = 2048  # over all connections; an idle one costs a few kilobytes
CONCURRENT_STREAMS = 256  # of one connection
WINDOW = 4 << 20  # bytes that a stream may send before they are read: 300 Mbit/s at 100 ms
GRACE_SECONDS = 5.0
_SLACK = 64 << 10


class App:
    """A configured server. `start` listens, `heed_signals` and `wait` serve until SIGTERM or SIGINT, `stop` drains.

    Calls are served by an event loop on a thread of its own. gate: what every call passes; None: one that tells callers
    apart by their certificates, where they have to have some.
    """

    def __init__(self, settings: Settings, gate: Gate | None = None) -> None:
        self.settings = settings
        _require_free(settings)  # now, and not after planning
        self.registry = Registry.load(settings)
        self.blinds = BlindPool(settings.blind_bytes, settings.blinds_per_key)
        certified = settings.tls is not None and settings.tls.client_ca is not None
        self._gate = gate or (GuardedGate(GuardSettings()) if certified else OpenGate())
        self._gate.serve({name: self.registry.get(name).digest for name in self.registry.names()})
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
        self._thread = threading.Thread(target=self._serve, name="event-loop", daemon=True)
        self._started: Future[str] = Future()
        self._ending = Ending()
        self._stopping: asyncio.Event | None = None

    def start(self) -> str:
        """Listen and serve; returns "HOST:PORT". Raises SettingsError when the address cannot be had."""
        self.blinds.start()
        self.front.clients.vault.start()
        self._thread.start()
        try:
            return self._started.result()
        except SettingsError:
            self.blinds.close()
            self.front.clients.vault.close()
            raise

    def heed_signals(self) -> None:
        """As `Ending.heed_signals`."""
        self._ending.heed_signals()

    def wait(self) -> None:
        """Serve until a signal, then drain."""
        self._ending.wait()
        self.stop()

    def stop(self) -> None:
        """Tell health checks, let calls under way end, for some seconds; then end the workers."""
        if self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            # In pieces, so that a second signal is heeded.
            while self._thread.is_alive():
                self._thread.join(0.2)

    # On the event loop's thread.

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        status = health.aio.HealthServicer()
        try:
            server, address = await self._listen(status)
        except BaseException as problem:
            self._started.set_exception(problem)
            return
        for name in ("", *SERVICES):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.front.start()
        self._started.set_result(address)
        await self._stopping.wait()
        await status.enter_graceful_shutdown()
        await asyncio.to_thread(self.blinds.close)  # requests that are still under way make their own
        await server.stop(GRACE_SECONDS)
        await self.front.close()
        await asyncio.to_thread(self.front.clients.vault.close)

    async def _listen(self, status: health.aio.HealthServicer) -> tuple[grpc.aio.Server, str]:
        settings, limit = self.settings, _message_limit(self.registry)
        server = grpc.aio.server(
            maximum_concurrent_rpcs=CONCURRENT_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
                ("grpc.max_concurrent_streams", CONCURRENT_STREAMS),
                # A window of that size, not one found by probing: half the processor time for a query of 400 kB, a tenth
                # less for a small one.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", WINDOW),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", max(limit, MAX_ANSWER_BYTES)),
            ],
        )
        methods = (
            InferenceServicer(self.front, self._gate, plaintext_baseline=settings.plaintext_baseline).methods(),
            ModelServicer(self.front.dataplane, self._gate).methods(),
            KeyServicer(self.front.clients.calls, self._gate).methods(),
        )
        server.add_generic_rpc_handlers(
            [rpc.handlers(name, self._gate, those) for name, those in zip(SERVICES, methods, strict=True)]
        )
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        tls = settings.tls
        credentials = None if tls is None else server_credentials(tls.certificate, tls.key, tls.client_ca)
        address = bound(server, settings.host, settings.port, credentials)
        await server.start()
        return server, address


def _message_limit(registry: Registry) -> int:
    """Bytes of the largest message that any plan needs."""
    models = [registry.get(name) for name in registry.names()]
    plans = [offered.plan for model in models for offered in model.offered.values()]
    largest = max((max(p.query_bytes, p.answer_bytes) * p.queries_per_call for p in plans), default=0)
    feature = max((b.plan.ciphertext_bytes for model in models for b in model.batches.values()), default=0)
    return max(largest, 2 << 20, feature) + _SLACK


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
