"""The key material that a client uploads once for a plan: the public key, and the switching keys the plan asks for.

Nothing that the plan does not use travels: a switching key applied at level L is one polynomial for each of the first L
primes, modulo those and the special one; the public key is left out where nothing is blinded. Uniform halves travel as
seeds, so they cannot be chosen. In order: public key, one key for each of `plan.automorphisms`, the relinearisation key,
`plan.part_keys` keys (see `batch.keys`); a polynomial's packed residues, then its 64-byte seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.ckks import seal
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import Residues, pack_residues, residue_bytes, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES, SwitchingKey
from secure_infer.errors import MalformedRequest

Half = tuple[Residues, bytes]
"""c0 (all primes, N) and the seed of c1."""


@dataclass(frozen=True)
class KeyMaterial:
    """public: None where nothing is blinded. automorphisms: by Galois element. parts: as `batch.keys.targets` orders them.

    Residues at primes not sent are zero.
    """

    public: Half | None
    automorphisms: Mapping[int, SwitchingKey]
    relinearisation: SwitchingKey
    parts: Sequence[SwitchingKey] = ()

    @property
    def halves(self) -> list[Half]:
        """Every half that was sent."""
        found = [] if self.public is None else [self.public]
        for key in (*self.automorphisms.values(), self.relinearisation, *self.parts):
            found.extend(key)
        return found


@dataclass(frozen=True)
class SwitchingKeys:
    """Keys ready for SEAL, of one client."""

    galois: seal.GaloisKeys | None
    relin: seal.RelinKeys | None
    parts: Sequence[seal.RelinKeys] = ()


def pack(plan: Plan, material: KeyMaterial) -> bytes:
    """The bytes that travel; `material` as SEAL made it, with all residues."""
    primes = plan.parameters.primes

    def packed(half: Half, kept: Sequence[int]) -> bytes:
        c0, seed = half
        return pack_residues(c0[[primes.index(prime) for prime in kept]], kept) + seed

    parts = [] if material.public is None else [packed(material.public, plan.public_primes)]
    for element, level in plan.automorphisms:
        parts += [packed(h, plan.switching_primes(level)) for h in material.automorphisms[element][:level]]
    level = plan.relinearisation
    parts += [packed(h, plan.switching_primes(level)) for h in material.relinearisation[:level]]
    parts += [packed(h, primes) for key in material.parts for h in key]
    return b"".join(parts)


def parse(plan: Plan, data: bytes) -> KeyMaterial:
    """Uploaded key material; raises MalformedRequest on any other length or a residue that is not below its prime."""
    if len(data) != plan.key_bytes:
        raise MalformedRequest(f"public key: expected {plan.key_bytes} bytes for {plan.parameters}, got {len(data)}")
    primes, degree = plan.parameters.primes, plan.parameters.degree
    at = 0

    def half(kept: Sequence[int]) -> Half:
        nonlocal at
        stop = at + residue_bytes(degree, kept)
        c0 = np.zeros((len(primes), degree), np.uint64)
        c0[[primes.index(prime) for prime in kept]] = unpack_residues(data[at:stop], degree, kept, "public key")
        at = stop + SEED_BYTES
        return c0, data[stop:at]

    public = None if plan.privacy is Privacy.INPUT_PRIVATE else half(plan.public_primes)
    automorphisms = {e: [half(plan.switching_primes(level)) for _ in range(level)] for e, level in plan.automorphisms}
    level = plan.relinearisation
    relinearisation = [half(plan.switching_primes(level)) for _ in range(level)]
    parts = [[half(primes) for _ in plan.parameters.data_primes] for _ in range(plan.part_keys)]
    return KeyMaterial(public, automorphisms, relinearisation, parts)


def load(plan: Plan, material: KeyMaterial) -> SwitchingKeys:
    """`material` as SEAL's objects. SEAL wants a polynomial for every data prime: those never used are copies."""
    ring = seal.ring(plan.parameters)
    full = len(plan.parameters.data_primes)

    def filled(key: SwitchingKey) -> SwitchingKey:
        return [*key, *[key[-1]] * (full - len(key))]

    galois = {element: filled(key) for element, key in material.automorphisms.items()}
    return SwitchingKeys(
        ring.galois_keys(galois) if galois else None,
        ring.relin_keys(filled(material.relinearisation)) if plan.relinearisation else None,
        [ring.relin_keys(key) for key in material.parts],
    )
