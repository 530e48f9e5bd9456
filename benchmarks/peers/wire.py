"""What the client and a party of secret sharing exchange: frames of one byte for the kind, eight for the length, a body."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence

MODEL, TRIAL, QUERY = b"M", b"T", b"Q"
"""A model to load, a query that is counted (rounds, bytes), a query that is timed. Answers have the kind of what they answer."""

_HEADER = struct.Struct("<cQ")


def send(link: socket.socket, kind: bytes, body: bytes) -> None:
    """One frame, in one piece: two small writes would wait for an acknowledgement in between."""
    link.sendall(_HEADER.pack(kind, len(body)) + body)


def receive(link: socket.socket) -> tuple[bytes, bytearray]:
    """(kind, body) of the next frame; raises EOFError when the other end has closed, TimeoutError at the link's deadline."""
    kind, length = _HEADER.unpack(_exactly(link, _HEADER.size))
    return kind, _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytearray:
    body = bytearray(length)
    rest = memoryview(body)
    while rest:
        count = link.recv_into(rest)
        if not count:
            raise EOFError("the other end closed the connection")
        rest = rest[count:]
    return body


def packed(parts: Sequence[bytes]) -> bytes:
    """Several bodies as one."""
    return b"".join(struct.pack("<Q", len(part)) + part for part in parts)


def unpacked(body: bytes | bytearray) -> list[bytes]:
    """What `packed` made one of."""
    parts, rest = [], memoryview(body)
    while rest:
        (length,) = struct.unpack_from("<Q", rest)
        parts.append(bytes(rest[8 : 8 + length]))
        rest = rest[8 + length :]
    return parts


def connected(port: str, rank: str) -> socket.socket:
    """A party's connection to the client at a port on loopback, its rank told."""
    link = socket.create_connection(("127.0.0.1", int(port)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send(link, MODEL, rank.encode())
    return link


def end_with_client() -> None:
    """Waits until standard input closes: a library's own waits may have no deadline, and a process outlive its client."""
    sys.stdin.buffer.read()
    os._exit(1)
