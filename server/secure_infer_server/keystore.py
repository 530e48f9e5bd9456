"""Clients' public keys: content-addressed, in memory, bounded; the least recently used is forgotten first."""

from __future__ import annotations

import threading
from collections import OrderedDict

from secure_infer.errors import ResourceExhausted


class KeyStore:
    """Keys by SHA-256 digest; holds at most `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, digest: bytes, key: bytes) -> None:
        """Keep `key`, whose digest was checked; raises ResourceExhausted when it alone exceeds the capacity."""
        if len(key) > self._capacity:
            raise ResourceExhausted(f"public key: {len(key)} bytes exceed the store's {self._capacity}")
        with self._lock:
            if digest not in self._keys:
                self._size += len(key)
            self._keys[digest] = key
            self._keys.move_to_end(digest)
            while self._size > self._capacity:
                _, evicted = self._keys.popitem(last=False)
                self._size -= len(evicted)

    def get(self, digest: bytes) -> bytes | None:
        with self._lock:
            key = self._keys.get(digest)
            if key is not None:
                self._keys.move_to_end(digest)
            return key

    def __len__(self) -> int:
        return len(self._keys)
