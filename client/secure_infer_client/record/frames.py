"""A file of encrypted entries, each bound to all before it.

    file    header (`sealed.Lock`), frame 1, frame 2, ...
    frame   length of what follows (4, big-endian), its MAC (8), nonce, ciphertext, tag
    hash 0 = SHA-256(header), hash n = SHA-256(hash n-1, frame n)

The MAC and the cipher's context hold n and hash n-1, so that a frame that was changed, moved, put in or taken out does not
open, nor anything after it. The last frames can be cut off unseen by whoever keeps no position, "n:hash n", elsewhere.

A process killed while it appends leaves the beginning of a frame. The MAC tells it from a frame whose length was changed: a
torn frame has a true head, or less than a head, and then the file ends.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from secure_infer.errors import CannotUnlock
from secure_infer_client.sealed import HEADER_BYTES, OVERHEAD, TAG_BYTES, Lock

PURPOSE = b"record"
LARGEST = 1 << 26
"""Bytes of an entry."""

_HEAD = struct.Struct(">I8s")


@dataclass(frozen=True)
class Position:
    """Entries so far and the hash of the last; where a chain stands."""

    sequence: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"


class Chain:
    """Makes and opens frames, one after the other. Not safe to share between threads."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._lengths = lock.key(b"lengths")
        self.position = Position(0, hashlib.sha256(lock.header).digest())

    def frame(self, message: bytes) -> tuple[bytes, Position]:
        """The next frame, and where the chain stands once it is written; `position` is the caller's to move."""
        sealed = self._lock.seal(message, context=self._context())
        data = _HEAD.pack(len(sealed), self._mac(len(sealed))) + sealed
        return data, self._after(data)

    def walk(self, file: BinaryIO) -> Iterator[tuple[Position, bytes]]:
        """(position, message) of each frame from where `file` stands. Raises CannotUnlock at one that does not belong.

        Afterwards `position` is that of the last, and the file stands behind it; what is there then is a torn frame.
        """
        while True:
            start = file.tell()
            head = file.read(_HEAD.size)
            if len(head) == _HEAD.size:
                length, mac = _HEAD.unpack(head)
                if not (OVERHEAD <= length <= LARGEST + OVERHEAD) or not hmac.compare_digest(mac, self._mac(length)):
                    if not _zeros(head, file):
                        raise self._broken()
                    length = -1
                sealed = file.read(length) if length >= 0 else b""
                if len(sealed) == length:
                    try:
                        message = self._lock.open(sealed, context=self._context())
                    except CannotUnlock:
                        # Power was lost before the end of the last frame reached the disk: its length did, its bytes did not.
                        if file.read(1) or any(sealed[-TAG_BYTES:]):
                            raise self._broken() from None
                    else:
                        self.position = self._after(head + sealed)
                        yield self.position, message
                        continue
            file.seek(start)
            return

    def _context(self) -> bytes:
        return self.position.sequence.to_bytes(8, "big") + self.position.hash

    def _mac(self, length: int) -> bytes:
        return hmac.digest(self._lengths, self._context() + length.to_bytes(4, "big"), "sha256")[:8]

    def _after(self, frame: bytes) -> Position:
        return Position(self.position.sequence + 1, hashlib.sha256(self.position.hash + frame).digest())

    def _broken(self) -> CannotUnlock:
        return CannotUnlock(
            f"record: entry {self.position.sequence + 1} was changed, moved, put in, or its predecessor taken out; "
            f"{self.position.sequence} entries before it hold"
        )


def opened(file: BinaryIO) -> bytes:
    """The header of a record, from its beginning."""
    file.seek(0)
    return file.read(HEADER_BYTES)


def _zeros(head: bytes, file: BinaryIO) -> bool:
    """Whether nothing but zeros is left, as a file system leaves what it had no time to write."""
    if any(head):
        return False
    while block := file.read(1 << 16):
        if any(block):
            return False
    return True
