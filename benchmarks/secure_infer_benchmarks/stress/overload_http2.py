"""Unary gRPC calls as HTTP/2 frames made beforehand: a call costs its sender some ten microseconds, where gRPC's own client takes
hundreds and, on the same machine, takes them from the server (RFC 9113; RFC 7541 for headers).

A connection sends what its peer's windows and number of streams allow, and keeps the rest: a server that holds its callers back
is seen as such.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
_MAX_STREAMS, _INITIAL_WINDOW = 3, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = 16384
_WINDOW = 1 << 30  # what servers may send before they hear from us
_STATIC = 61  # entries of HPACK's static table
LOST = -1
"""In place of a gRPC status: the stream or the connection ended without one."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: bytes) -> bytes:
    """A string literal without Huffman coding, below 127 bytes."""
    return bytes([len(value)]) + value


def request_headers(method: str, authority: str, timeout: float) -> bytes:
    """A header block for any number of calls: nothing in it is remembered by the peer's table."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + (b"\x04" + _text(method.encode()))
        + (b"\x01" + _text(authority.encode()))
        + (b"\x00" + _text(b"te") + _text(b"trailers"))
        + (b"\x0f\x10" + _text(b"application/grpc"))
        + (b"\x00" + _text(b"grpc-timeout") + _text(b"%dm" % round(1e3 * timeout)))
    )


class Decoder:
    """HPACK as far as it takes to find `grpc-status`: strings that are Huffman coded stay so, names of the static table are
    not looked up."""

    def __init__(self) -> None:
        self._table: deque[tuple[bytes, bytes]] = deque()
        self._size, self._limit = 0, 4096

    def status(self, block: bytes) -> int | None:
        """The gRPC status in a header block, None where it has none. Every block has to pass here, in order."""
        found = None
        for name, value in self._fields(block):
            if name == b"grpc-status":
                found = int(value)
        return found

    def _fields(self, block: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = self._number(block, at, 7)
                yield self._entry(index)
            elif first & 0xE0 == 0x20:
                self._limit, at = self._number(block, at, 5)
                self._evict()
            else:
                index, at = self._number(block, at, 6 if first & 0x40 else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._string(block, at)
                value, at = self._string(block, at)
                if first & 0x40:
                    self._table.appendleft((name, value))
                    self._size += len(name) + len(value) + 32
                    self._evict()
                yield name, value

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        return self._table[index - _STATIC - 1] if index > _STATIC else (b"", b"")

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + 32

    @staticmethod
    def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
        most = (1 << bits) - 1
        value, at, shift = block[at] & most, at + 1, 0
        if value < most:
            return value, at
        while True:
            value += (block[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not block[at - 1] & 0x80:
                return value, at

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        length, after = self._number(block, at, 7)
        return block[after : after + length], after + length


@dataclass(slots=True)
class Call:
    """due: when it was to be sent. sent, ended: when its last byte left, and when its status came. answer: the message."""

    number: int
    due: float
    sent: float = 0.0
    ended: float = 0.0
    status: int = LOST
    answer: bytes = b""
    parts: list[bytes] = field(default_factory=list)


class Connection:
    """One plain connection; driven by whoever owns it: `call` and `read`, then `write` until it is empty."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        settings = struct.pack(">HI", _INITIAL_WINDOW, _WINDOW)
        self._out = bytearray(_PREFACE + frame(SETTINGS, 0, 0, settings))
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        self._in = bytearray()
        self._next, self._streams = 1, 100  # until the peer says
        self._window, self._stream_window, self._unread = 65535, 65535, 0
        self._open: dict[int, Call] = {}
        self._kept: deque[tuple[Call, bytes, bytes]] = deque()
        self._decoder = Decoder()
        self.closed = False

    @property
    def under_way(self) -> int:
        return len(self._open) + len(self._kept)

    def call(self, call: Call, headers: bytes, message: bytes) -> None:
        """Send it as soon as the peer takes it."""
        self._kept.append((call, headers, b"\0" + struct.pack(">I", len(message)) + message))

    def write(self, now: float) -> bool:
        """Send what can be sent; whether something is left that the socket did not take."""
        while self._kept and len(self._open) < self._streams and not self._out:
            call, headers, body = self._kept[0]
            if len(body) > min(self._window, self._stream_window):
                break
            self._kept.popleft()
            stream, self._next = self._next, self._next + 2
            self._window -= len(body)
            self._open[stream] = call
            call.sent = now
            self._out += frame(HEADERS, END_HEADERS, stream, headers)
            for at in range(0, len(body), _FRAME):
                last = END_STREAM if at + _FRAME >= len(body) else 0
                self._out += frame(DATA, last, stream, body[at : at + _FRAME])
            self._flush()
        if self._out:
            self._flush()
        return bool(self._out)

    def _flush(self) -> None:
        try:
            del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def read(self, now: float) -> list[Call]:
        """Calls that ended with what came."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return self.lose(now)
        self._in += data
        ended, at = [], 0
        while len(self._in) - at >= 9:
            length = int.from_bytes(self._in[at : at + 3], "big")
            if len(self._in) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._in, at + 3)
            call = self._taken(kind, flags, stream, bytes(self._in[at + 9 : at + 9 + length]))
            at += 9 + length
            if call is not None:
                call.ended = now
                ended.append(call)
        del self._in[:at]
        if self._unread > _WINDOW // 2:
            self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unread))
            self._unread = 0
        return ended

    def lose(self, now: float) -> list[Call]:
        """What is under way, given up."""
        lost = [*self._open.values(), *(call for call, _, _ in self._kept)]
        self._open.clear()
        self._kept.clear()
        for call in lost:
            call.ended = now
        return lost

    def _taken(self, kind: int, flags: int, stream: int, payload: bytes) -> Call | None:
        if kind == DATA:
            self._unread += len(payload)
            if (call := self._open.get(stream)) is not None:
                call.parts.append(payload)
        elif kind == HEADERS:
            status = self._decoder.status(payload)
            if flags & END_STREAM and (call := self._open.pop(stream, None)) is not None:
                call.status = LOST if status is None else status
                call.answer, call.parts = b"".join(call.parts)[5:], []
                return call
        elif kind == RST_STREAM:
            return self._open.pop(stream, None)
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _MAX_STREAMS:
                    self._streams = value
                elif name == _INITIAL_WINDOW:
                    self._stream_window = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        return None

    def close(self) -> None:
        self.socket.close()
