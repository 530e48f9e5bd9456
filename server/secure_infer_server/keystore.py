"""A client's key material, loaded for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.ckks import keymaterial
from secure_infer.ckks.keymaterial import Half, KeyMaterial, SwitchingKeys
from secure_infer.ckks.plan import Plan


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
