"""Clients' key material: content-addressed, in memory, bounded; the least recently used is forgotten first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from secure_infer.ckks import keymaterial
from secure_infer.ckks.keymaterial import Half, KeyMaterial, SwitchingKeys
from secure_infer.ckks.plan import Plan
from secure_infer.errors import ResourceExhausted


@dataclass(frozen=True)
class ClientKeys:
    """One client's keys for one plan, ready for use. public: None where nothing is blinded. size: bytes of memory."""

    public: Half | None
    switching: SwitchingKeys
    size: int

    @classmethod
    def load(cls, plan: Plan, material: KeyMaterial) -> ClientKeys:
        primes, degree = len(plan.parameters.primes), plan.parameters.degree
        switched = len(plan.automorphisms) + bool(plan.relinearisation) + plan.part_keys
        halves = 1 + 2 * switched * len(plan.parameters.data_primes)
        return cls(material.public, keymaterial.load(plan, material), 8 * primes * degree * halves)


class KeyStore:
    """Keys by plan digest and key digest; holds at most `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[tuple[bytes, bytes], ClientKeys] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, plan: bytes, digest: bytes, keys: ClientKeys) -> None:
        """Keep `keys`, whose digest was checked; raises ResourceExhausted when they alone exceed the capacity."""
        if keys.size > self._capacity:
            raise ResourceExhausted(f"public key: {keys.size} bytes exceed the store's {self._capacity}")
        with self._lock:
            if (plan, digest) not in self._keys:
                self._size += keys.size
                self._keys[plan, digest] = keys
            self._keys.move_to_end((plan, digest))
            while self._size > self._capacity:
                _, evicted = self._keys.popitem(last=False)
                self._size -= evicted.size

    def get(self, plan: bytes, digest: bytes) -> ClientKeys | None:
        with self._lock:
            keys = self._keys.get((plan, digest))
            if keys is not None:
                self._keys.move_to_end((plan, digest))
            return keys

    def __len__(self) -> int:
        return len(self._keys)
