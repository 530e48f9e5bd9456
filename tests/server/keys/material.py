"""Plans and real key material for tests of vault and service."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ckks.slots.pair import SlotPair, contract, network
from secure_infer.ckks import seal
from secure_infer.ckks.plan import Plan
from secure_infer.ckks.residues import pack_residues
from secure_infer.ckks.slots.planner import Demand, Layout, Planner
from secure_infer_client.keys import SecretKey


@dataclass(frozen=True)
class Sample:
    """A plan with switching keys, a client's secret, and what the client uploads."""

    plan: Plan
    secret: SecretKey
    data: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()

    @property
    def plan_digest(self) -> bytes:
        return bytes.fromhex(self.plan.digest)

    def with_secret_in_place_of_public_key(self) -> bytes:
        """An upload of the right length whose first polynomial is the secret, in NTT form."""
        residues = seal.ring(self.plan.parameters).ntt(self.secret.polynomial().astype(np.int64))
        kept = self.plan.public_primes
        whole = np.zeros((len(kept), self.plan.parameters.degree), np.uint64)
        rows = min(len(kept), len(residues))
        whole[:rows] = residues[:rows]
        packed = pack_residues(whole, kept)
        return packed + self.data[len(packed) :]


def sample() -> Sample:
    """Eight polynomials or so of 8192 coefficients."""
    planner = Planner(network((20, 8, 3), 3), contract(20))
    pair = SlotPair.of(planner, Layout(8192, 1, 2, 8, 2, 0), Demand(error=1e-2, smudging=8))
    secret = SecretKey(pair.plan.parameters)
    return Sample(pair.plan, secret, secret.upload(pair.plan).data)


def another(first: Sample) -> Sample:
    """Another client's, for the same plan."""
    secret = SecretKey(first.plan.parameters)
    return Sample(first.plan, secret, secret.upload(first.plan).data)
