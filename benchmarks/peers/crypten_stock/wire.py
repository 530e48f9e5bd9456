"""What the client and a party send each other: frames of one byte for the kind, eight for the length, and the body."""

from __future__ import annotations

import socket
import struct

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
