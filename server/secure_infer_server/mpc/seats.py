"""A party's live stream at the dealer: messages that wait to be sent, bounded in bytes and in time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from secure_infer.errors import SecureInferError
from secure_infer.v1 import mpc_pb2

FULL_BYTES = 8 << 20
"""A seat with more than that unsent is dealt no more until it is sent."""

STALL_SECONDS = 30.0
"""A party that takes nothing for so long loses its stream."""

_PARTING_SECONDS = 1.0  # to take the message that is being sent, when the stream ends


class Seat:
    """One stream of party 0 or 1. hang_up: ends it at once, while a message is being sent. drained: called when the
    seat is full no more."""

    def __init__(self, party: int, hang_up: Callable[[], object], drained: Callable[[], object]) -> None:
        self.party = party
        self._hang_up, self._drained = hang_up, drained
        self._waiting: deque[mpc_pb2.DealResponse] = deque()
        self._bytes = 0
        self._sending = self._closed = False
        self._error: SecureInferError | None = None
        self._moved = monotonic()
        self._changed = threading.Condition()

    @property
    def full(self) -> bool:
        return self._bytes > FULL_BYTES

    @property
    def closed(self) -> bool:
        return self._closed

    def stalled(self, now: float) -> bool:
        """True when something waits, and nothing was taken for STALL_SECONDS."""
        return bool(self._bytes) and now - self._moved > STALL_SECONDS

    def send(self, message: mpc_pb2.DealResponse) -> None:
        """Queue a message; dropped when the seat is closed."""
        with self._changed:
            if self._closed:
                return
            if not self._bytes:
                self._moved = monotonic()
            self._waiting.append(message)
            self._bytes += message.ByteSize()
            self._changed.notify()

    def close(self, error: SecureInferError | None = None) -> None:
        """End the stream, with an error where there is one; what was not sent is dropped. Does nothing the second time."""
        with self._changed:
            if self._closed:
                return
            self._closed, self._error = True, error
            self._waiting.clear()
            self._changed.notify()
            stuck = self._sending
        if stuck:  # the sender sees it as soon as the party takes the message, and says why
            timer = threading.Timer(_PARTING_SECONDS, self._part)
            timer.daemon = True
            timer.start()

    def _part(self) -> None:
        if self._sending:
            self._hang_up()

    def outgoing(self) -> Iterator[mpc_pb2.DealResponse]:
        """The messages, until the seat is closed; raises the error that closed it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    break
                message = self._waiting.popleft()
                self._sending = True
            yield message
            self._sent(message.ByteSize())
            del message  # holds a seed
        if self._error is not None:
            raise self._error

    def _sent(self, size: int) -> None:
        with self._changed:
            was_full = self.full
            self._sending = False
            self._bytes -= size
            self._moved = monotonic()
            drained = was_full and not self.full
        if drained:
            self._drained()
