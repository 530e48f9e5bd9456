"""What two parties say to each other: rounds, in each of which both send one message of the same length.

Evaluation knows this interface alone; sockets are the server's. `opened` opens several shared arrays in one round.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import PeerFailure
from secure_infer.mpc.ring import Words


class Link(Protocol):
    """One request's exchange with the other party. rounds, sent: rounds and payload bytes of this party so far.

    exchange: sends `payload` and returns the peer's, of the same length; raises PeerFailure, after which the link is of no
    more use.
    """

    rounds: int
    sent: int

    def exchange(self, payload: bytes) -> bytes | bytearray: ...


@dataclass(frozen=True)
class Xor:
    """An array (uint8 or words) whose shares are joined by exclusive or, where `opened` adds by default."""

    share: NDArray[Any]


def opened(link: Link, *shares: Words | Xor) -> list[NDArray[Any]]:
    """The values that the shares stand for, all in one message and one round."""
    own = [one.share if isinstance(one, Xor) else one for one in shares]
    payload = b"".join(np.ascontiguousarray(array).tobytes() for array in own)
    peer = memoryview(link.exchange(payload))
    found: list[NDArray[Any]] = []
    start = 0
    for share, array in zip(shares, own, strict=True):
        other = np.frombuffer(peer[start : start + array.nbytes], dtype=array.dtype).reshape(array.shape)
        found.append(array ^ other if isinstance(share, Xor) else array + other)
        start += array.nbytes
    return found


class MemoryLink:
    """A link within one process, for two threads; `log` keeps every payload sent. For tests and dry runs."""

    def __init__(self, inbox: queue.SimpleQueue[bytes], outbox: queue.SimpleQueue[bytes], seconds: float) -> None:
        self._inbox, self._outbox, self._seconds = inbox, outbox, seconds
        self.rounds = self.sent = 0
        self.log: list[bytes] = []

    def exchange(self, payload: bytes) -> bytes:
        self.rounds += 1
        self.sent += len(payload)
        self.log.append(payload)
        self._outbox.put(payload)
        try:
            peer = self._inbox.get(timeout=self._seconds)
        except queue.Empty:
            raise PeerFailure(f"peer: no message within {self._seconds:g} s") from None
        if len(peer) != len(payload):
            raise PeerFailure(f"peer: expected a message of {len(payload)} bytes, got {len(peer)}")
        return peer


def memory_links(seconds: float = 30.0) -> tuple[MemoryLink, MemoryLink]:
    """The two ends of one link."""
    one: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    two: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return MemoryLink(one, two, seconds), MemoryLink(two, one, seconds)
