"""Keys ready for evaluation, in memory: bounded; the least recently used is loaded again when it is asked for again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from secure_infer.errors import ResourceExhausted
from secure_infer_server.keys.names import KeyName

Ready = TypeVar("Ready")


@dataclass
class _Entry(Generic[Ready]):
    keys: Ready
    size: int
    confirmed: float


class ReadyKeys(Generic[Ready]):
    """At most `capacity` bytes, as told with each key."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[KeyName, _Entry[Ready]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def require(self, size: int) -> None:
        """Raise ResourceExhausted for keys that would not fit into empty memory."""
        if size > self._capacity:
            raise ResourceExhausted(f"public key: {size} bytes exceed the {self._capacity} kept ready for evaluation")

    def put(self, name: KeyName, keys: Ready, size: int, now: float) -> None:
        """Keep `keys`, which the store was seen to hold at `now`. Raises ResourceExhausted."""
        self.require(size)
        with self._lock:
            self._drop(name)
            self._entries[name] = _Entry(keys, size, now)
            self._size += size
            while self._size > self._capacity:
                self._drop(next(iter(self._entries)))

    def get(self, name: KeyName) -> tuple[Ready, float] | None:
        """The keys, and when the store was last seen to hold them."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return None
            self._entries.move_to_end(name)
            return entry.keys, entry.confirmed

    def confirm(self, name: KeyName, now: float) -> None:
        with self._lock:
            if name in self._entries:
                self._entries[name].confirmed = now

    def drop(self, name: KeyName) -> None:
        with self._lock:
            self._drop(name)

    def _drop(self, name: KeyName) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._size -= entry.size

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self._size
