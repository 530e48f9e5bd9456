"""Both sides of a batch in one process: the client's keys and the server's evaluation."""

from __future__ import annotations

import numpy as np

from secure_infer.ckks import keymaterial
from secure_infer.ckks.batch.blinding import BatchBlinder
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.planner import Program
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer_client.keys import SecretKey


class BatchPair:
    """Client and server for one program."""

    def __init__(self, program: Program) -> None:
        self.program, self.plan = program, program.plan
        self.key = SecretKey(self.plan.parameters)
        self.secret = self.key.polynomial()
        self.upload = self.key.upload(self.plan).data
        assert len(self.upload) == self.plan.key_bytes
        material = keymaterial.parse(self.plan, self.upload)
        self.switching = keymaterial.load(self.plan, material).parts
        self.blind = None if material.public is None else BatchBlinder(self.plan, material.public).residues

    def query(self, rows: np.ndarray) -> list[bytes]:
        query = [self.key.encrypt_batch(polynomial) for polynomial in pack_batch(self.plan, rows)]
        assert sum(map(len, query)) == self.plan.query_bytes
        return query

    def answers(self, rows: np.ndarray) -> list[bytes]:
        evaluation = self.program.evaluation()
        for data in self.query(rows):
            evaluation.add(read_ciphertext(self.plan, data))
        return [answer for answer in evaluation.answers(self.blind, self.switching) if answer is not None]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return read_batch(self.plan, self.secret, self.answers(rows), len(rows))


def in_ball(count: int, features: int, norm: float, seed: int = 0) -> np.ndarray:
    """Random rows of that L2 norm."""
    x = np.random.default_rng(seed).normal(size=(count, features))
    return x * norm / np.linalg.norm(x, axis=1, keepdims=True)
