"""The server's intake of a batch: one feature's ciphertext from its bytes."""

from __future__ import annotations

import numpy as np

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.batch.uniform import expand
from secure_infer.ckks.residues import Residues, residue_bytes, unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import MalformedRequest


def read_ciphertext(plan: BatchPlan, data: bytes) -> Residues:
    """Residues (2, data primes, N) of one feature: packed c0, then the seed of c1. Raises MalformedRequest."""
    if len(data) != plan.ciphertext_bytes:
        raise MalformedRequest(f"ciphertext: expected {plan.ciphertext_bytes} bytes, got {len(data)}")
    primes, degree = plan.parameters.data_primes, plan.parameters.degree
    c0 = unpack_residues(data[: residue_bytes(degree, primes)], degree, primes, "ciphertext")
    return np.stack([c0, expand(data[-SEED_BYTES:], primes, degree)])
