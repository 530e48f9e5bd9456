"""Clients' key material as it was uploaded and checked, for workers to load; in memory, bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import residue_bytes, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import ResourceExhausted


@dataclass(frozen=True)
class Material:
    """data: of all keys. public: what blinds are made under; None where nothing is blinded."""

    data: bytes
    public: Half | None

    @classmethod
    def of(cls, plan: Plan, data: bytes) -> Material:
        """From bytes that were checked as a whole; the public key comes first in them (see `ckks.keymaterial`)."""
        if plan.privacy is Privacy.INPUT_PRIVATE:
            return cls(data, None)
        degree, primes, kept = plan.parameters.degree, plan.parameters.primes, plan.public_primes
        size = residue_bytes(degree, kept)
        c0 = np.zeros((len(primes), degree), np.uint64)
        c0[[primes.index(prime) for prime in kept]] = unpack_residues(data[:size], degree, kept, "public key")
        return cls(data, (c0, data[size : size + SEED_BYTES]))


class MaterialStore:
    """By plan and key digest; holds at most `capacity` bytes of it, the least recently used is forgotten first.

    For one event loop.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity, self._size = capacity, 0
        self._held: OrderedDict[tuple[bytes, bytes], Material] = OrderedDict()

    def put(self, plan: bytes, digest: bytes, material: Material) -> None:
        """Keep it; raises ResourceExhausted when it alone exceeds the capacity."""
        if len(material.data) > self._capacity:
            raise ResourceExhausted(f"public key: {len(material.data)} bytes exceed the store's {self._capacity}")
        if (plan, digest) not in self._held:
            self._held[plan, digest] = material
            self._size += len(material.data)
        while self._size > self._capacity:
            _, evicted = self._held.popitem(last=False)
            self._size -= len(evicted.data)

    def get(self, plan: bytes, digest: bytes) -> Material | None:
        material = self._held.get((plan, digest))
        if material is not None:
            self._held.move_to_end((plan, digest))
        return material
