"""A client's key material as it was uploaded and checked, for workers to load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import residue_bytes, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES


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
