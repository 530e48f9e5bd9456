"""Sends inputs and looks at what comes back."""

from __future__ import annotations

import asyncio
import ssl
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any

import grpc

from secure_infer.address import parse
from secure_infer_benchmarks.stress import hostile_parsers
from secure_infer_benchmarks.stress.hostile_checks import answered, forms, refused
from secure_infer_benchmarks.stress.hostile_inputs import PARSED, PARTIES, SECONDS, Input
from secure_infer_benchmarks.stress.hostile_layout import HOSTILE, Served
from secure_infer_benchmarks.stress.wires import channel, tls_context

STREAMS = 16  # at once
MOST_READ = 1 << 20
IDLE_SECONDS = 0.5  # that a lane is left open with nothing on it
_ABSENT = ("UNAVAILABLE", "no connection")
_PAUSES = (
    0.0,
    0.2,
    1.0,
    5.0,
)  # before each time that a server is asked which takes no calls: some input may just have ended it
_NEVER = "never answered"
UNANSWERED = ("DEADLINE_EXCEEDED", _NEVER)
LATE = ", late"
"""Ends the outcome of an input that was answered when it was sent again, with twice the time."""
_SLACK = 10.0  # seconds beyond an input's own until it counts as never answered


class Sender:
    """For one event loop. `send` returns (outcome, problem); the problem is "" where all is well."""

    def __init__(self, served: Served, canary: bytes) -> None:
        self._served, self._canary = served, canary
        self._channels: dict[tuple[str, str, bool], Any] = {}
        self._lock, self._threads = Lock(), ThreadPoolExecutor(STREAMS, "streams")
        self._tls: ssl.SSLContext | None = None

    async def send(self, made: Input) -> tuple[str, str]:
        if made.surface.startswith(PARSED):
            return self._parse(made)
        if made.where == PARTIES:
            each = [self.send(replace(made, where=party)) for party in PARTIES.split(" and ")]
            return max(await asyncio.gather(*each), key=lambda found: found[1])  # the one with a problem
        outcome, problem = await self._sent(made)
        if problem and outcome in UNANSWERED:
            # Where the machine had no time, it has some for the same input later; where the input hangs, it hangs again.
            outcome, problem = await self._sent(replace(made, seconds=2 * made.seconds))
            outcome = outcome if problem else f"{outcome}{LATE}"
        return outcome, problem

    async def _sent(self, made: Input) -> tuple[str, str]:
        outcome, problem = "", ""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(made.seconds + _SLACK):
                    outcome, problem = await (self._call(made) if made.method else self._write(made))
            except TimeoutError:
                return _NEVER, f"no answer within {made.seconds + _SLACK:g} s"
            if outcome not in _ABSENT:
                break
        return outcome, problem

    async def close(self) -> None:
        self._threads.shutdown()
        for (_, _, aio), opened in self._channels.items():
            if aio:
                await opened.close()
            else:
                opened.close()

    # Parsers.

    def _parse(self, made: Input) -> tuple[str, str]:
        try:
            return hostile_parsers.parse(made.surface.removeprefix(PARSED), made.messages[0]), ""
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__} in {where.filename.rpartition('/')[2]}: {where.name}"
            return type(error).__name__, problem

    # Calls.

    def _channel(self, made: Input, *, aio: bool) -> Any:
        key = (made.where, made.identity, aio)
        with self._lock:
            if key not in self._channels:
                self._channels[key] = channel(self._served, made.where, made.identity, aio=aio)
            return self._channels[key]

    async def _call(self, made: Input) -> tuple[str, str]:
        if len(made.messages) != 1 or made.streams:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._stream, made)
        call: Any = None
        try:
            opened = self._channel(made, aio=True)
            call = opened.unary_unary(made.method)(
                made.messages[0], timeout=made.seconds, metadata=tuple(made.metadata)
            )
            if made.hangs_up:
                await asyncio.sleep(0)
                call.cancel()
            data = await call
            return "ok", answered(made, data)
        except grpc.aio.AioRpcError as error:
            return refused(
                made, error.code().name, error.details() or "", error.trailing_metadata() or (), self._canary
            )
        except asyncio.CancelledError:
            if made.hangs_up and call is not None and call.cancelled():
                return "abandoned", ""
            raise

    def _stream(self, made: Input) -> tuple[str, str]:
        """On a thread: grpc.aio gives a status of its own to streams that are refused while one writes."""
        opened = self._channel(made, aio=False)
        call = opened.stream_stream(made.method)(
            iter(made.messages), timeout=made.seconds, metadata=tuple(made.metadata)
        )
        if made.hangs_up:
            time.sleep(0.002)
            call.cancel()
        try:
            for _ in call:
                pass
            return "ok", ""
        except grpc.RpcError:
            return refused(made, call.code().name, call.details() or "", call.trailing_metadata() or (), self._canary)

    # Sockets.

    async def _write(self, made: Input) -> tuple[str, str]:
        """Write, say that nothing follows, and wait for the end; a server that goes on waiting is at fault."""
        found = self._served.addresses[made.where]
        host, port = parse(found.address, made.where)
        secured = found.tls and made.surface == "HTTP/2 frames"
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=self._context() if secured else None)
        except OSError as error:
            return "no connection", f"{made.where} takes no connection ({type(error).__name__})"
        data = b""
        with suppress(OSError, ssl.SSLError):
            for piece in made.messages:
                writer.write(piece)
                await writer.drain()
            if secured:
                await asyncio.sleep(0.01)
            else:
                writer.write_eof()
                data = await _read(reader, made.where.endswith("lane"))
        writer.close()
        with suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(SECONDS):
                await writer.wait_closed()
        leaked = any(form in data for form in forms(self._canary))
        return "answered" if data else "closed", "bytes on the socket hold the canary" if leaked else ""

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context(self._served, HOSTILE)
        return self._tls


async def _read(reader: asyncio.StreamReader, idles: bool) -> bytes:
    """What comes until the end. idles: a sound hello makes a lane, which nobody looks at before it is needed."""
    data = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(IDLE_SECONDS if idles else None):
            while len(data) < MOST_READ and (part := await reader.read(1 << 16)):
                data += part
    return data
