"""Bytes that passed a socket, as the messages they are: HTTP/2's DATA frames joined, and cut where gRPC cuts them.

A frame is a length of 3 bytes, a kind, flags, a stream of 4 bytes, and so much content (RFC 9113, section 4.1). A message of
gRPC is one byte (0: as it is), a length of 4 bytes, and so much content.

    00 00 07 | 00 | 01 | 00 00 00 05 | 00 00 00 00 02 ab cd   ->   one message, ab cd
"""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _PADDED = 0, 0x8
_HEAD, _PREFIX = 9, 5


def messages(data: bytes) -> list[bytes]:
    """The messages in `data`, which begins between two frames, or with a connection. Empty for anything else."""
    streams: dict[int, bytearray] = {}
    at = len(PREFACE) if data.startswith(PREFACE) else 0
    while at + _HEAD <= len(data):
        size, kind, flags = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4]
        content = data[at + _HEAD : at + _HEAD + size]
        if kind == _DATA:
            if flags & _PADDED:
                return []
            streams.setdefault(int.from_bytes(data[at + 5 : at + _HEAD], "big"), bytearray()).extend(content)
        at += _HEAD + size
    if at != len(data):
        return []
    return [message for body in streams.values() for message in _cut(bytes(body))]


def _cut(body: bytes) -> list[bytes]:
    found = []
    at = 0
    while at + _PREFIX <= len(body):
        size = int.from_bytes(body[at + 1 : at + _PREFIX], "big")
        if body[at] != 0 or at + _PREFIX + size > len(body):
            break
        found.append(body[at + _PREFIX : at + _PREFIX + size])
        at += _PREFIX + size
    return found
