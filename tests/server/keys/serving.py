"""KeyService alone, on an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from secure_infer_server import rpc
from secure_infer_server.gate import Gate
from secure_infer_server.keys.servicer import SERVICE, KeyServicer


@contextmanager
def serve_keys(servicer: KeyServicer, gate: Gate) -> Iterator[str]:
    """Serves while entered; yields its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([rpc.handlers(SERVICE, gate, servicer.methods())])
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server, address

    server, address = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield address
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
