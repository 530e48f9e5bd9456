"""What of an upload may be stored before the whole is there: polynomials that are whole and not a secret's.

A secret sent by mistake must not reach a disk, not even as a pending file. Streams of SEAL's are told by their layout, a
bare secret polynomial by its ternary coefficients; the latter takes all bytes of the polynomial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from secure_infer.ckks import keymaterial
from secure_infer.ckks.keymaterial import KeyMaterial
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import residue_bytes, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer_server.guard import refuse_secret_streams, refuse_ternary


def check_material(plan: Plan, data: bytes) -> KeyMaterial:
    """Uploaded bytes as key material of `plan`; raises MalformedRequest, or SecretKeyReceived when it looks like one."""
    if len(data) != plan.key_bytes:
        refuse_secret_streams(data)
    material = keymaterial.parse(plan, data)
    for c0, _ in material.halves:
        refuse_ternary(plan, c0)
    return material


class Screen:
    """Passes a plan's key material, polynomial by polynomial. `ends`: where each ends, in bytes from the start."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._primes = plan, list(_primes(plan))
        self.ends = [0]
        for kept in self._primes:
            self.ends.append(self.ends[-1] + residue_bytes(plan.parameters.degree, kept) + SEED_BYTES)

    def passed(self, start: int, data: bytes) -> int:
        """How many of `data`, which belong at `start` (one of `ends`), may be stored: whole polynomials.

        Raises MalformedRequest or SecretKeyReceived.
        """
        refuse_secret_streams(data)
        index, parameters = self.ends.index(start), self._plan.parameters
        while index < len(self._primes) and self.ends[index + 1] <= start + len(data):
            at, stop = self.ends[index] - start, self.ends[index + 1] - start - SEED_BYTES
            kept = self._primes[index]
            c0 = np.zeros((len(parameters.primes), parameters.degree), np.uint64)
            rows = [parameters.primes.index(prime) for prime in kept]
            c0[rows] = unpack_residues(data[at:stop], parameters.degree, kept, "public key")
            refuse_ternary(self._plan, c0)
            index += 1
        return self.ends[index] - start


def _primes(plan: Plan) -> Iterator[Sequence[int]]:
    """The primes of each polynomial, in the order of `keymaterial`."""
    if plan.privacy is not Privacy.INPUT_PRIVATE:
        yield plan.public_primes
    for level in (*(level for _, level in plan.automorphisms), plan.relinearisation):
        for _ in range(level):
            yield plan.switching_primes(level)
    for _ in range(plan.part_keys * len(plan.parameters.data_primes)):
        yield plan.parameters.primes
