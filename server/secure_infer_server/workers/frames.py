"""Frames between the server and a worker: a JSON header with the lengths of the parts that follow it as they are.

4 bytes header length | 8 bytes length of all parts | header | parts
"""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

Header = dict[str, Any]
Part = bytes | memoryview

_LENGTHS = struct.Struct("<IQ")
_BUFFER = 1 << 20
_MOST_HEADER, _MOST_PARTS = 1 << 20, 1 << 32


def _start(header: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    lengths = [len(part) for part in parts]
    text = json.dumps({**header, "parts": lengths}, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(text), sum(lengths)) + text


def _lengths(start: Part) -> tuple[int, int]:
    header, parts = _LENGTHS.unpack(start)
    if header > _MOST_HEADER or parts > _MOST_PARTS:
        raise ConnectionError("a frame between server and worker is out of bounds")
    return header, parts


def _split(text: memoryview, body: memoryview) -> tuple[Header, list[bytes]]:
    header: Header = json.loads(bytes(text))
    parts, at = [], 0
    for length in header.pop("parts"):
        parts.append(bytes(body[at : at + length]))
        at += length
    if at != len(body):
        raise ConnectionError("a frame between server and worker does not add up")
    return header, parts


class Wire:
    """The worker's end: blocking. Raises ConnectionError when the server is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_BUFFER)  # kept: fresh memory for every frame takes longer than filling it

    def send(self, header: Mapping[str, Any], parts: Sequence[Part] = ()) -> None:
        self._sock.sendall(b"".join([_start(header, parts), *parts]))

    def receive(self) -> tuple[Header, list[bytes]]:
        header, parts = _lengths(self._exactly(_LENGTHS.size))
        view = self._exactly(header + parts)
        return _split(view[:header], view[header:])

    def waiting(self) -> bool:
        """Whether a frame, or the end, has come in."""
        return bool(select.select([self._sock], [], [], 0)[0])

    def _exactly(self, count: int) -> memoryview:
        """The next bytes, valid until the next call."""
        if count > len(self._buffer):
            self._buffer = bytearray(count)
        view, at = memoryview(self._buffer)[:count], 0
        while at < count:
            received = self._sock.recv_into(view[at:], 0, socket.MSG_WAITALL)  # one wait, not one a piece
            if not received:
                raise ConnectionError("the server is gone")
            at += received
        return view


class Connection(asyncio.BufferedProtocol):
    """The server's end, as a protocol of an event loop. frame: called with every frame that comes in. lost: called once,
    when the worker is gone or talks nonsense."""

    def __init__(self, frame: Callable[[Header, list[bytes]], None], lost: Callable[[], None]) -> None:
        self._frame, self._lost = frame, lost
        self._buffer, self._filled, self._wanted = bytearray(_BUFFER), 0, 0
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def send(self, header: Mapping[str, Any], parts: Sequence[Part] = ()) -> None:
        """Queued at once, sent when the worker reads; nothing happens when it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines([_start(header, parts), *parts])  # in one go: the worker wakes once

    async def flushed(self) -> None:
        """Wait until the worker keeps up, or is gone."""
        await self._writable.wait()

    def close(self) -> None:
        """Nothing more is sent; what was, may get lost."""
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        if max(self._wanted, self._filled + 1) > len(self._buffer):
            grown = bytearray(max(self._wanted, 2 * len(self._buffer)))
            grown[: self._filled] = memoryview(self._buffer)[: self._filled]
            self._buffer = grown
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            self._take()
        except (ConnectionError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.exception("a worker's frame could not be read")
            self.close()

    def _take(self) -> None:
        view, at = memoryview(self._buffer), 0
        while self._filled - at >= _LENGTHS.size:
            body = at + _LENGTHS.size
            header, parts = _lengths(view[at:body])
            self._wanted = header + parts + _LENGTHS.size
            if self._filled - at < self._wanted:
                break
            self._wanted, at = 0, body + header + parts
            self._frame(*_split(view[body : body + header], view[body + header : at]))
        if at:
            view[: self._filled - at] = bytes(view[at : self._filled])
            self._filled -= at

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._lost()
