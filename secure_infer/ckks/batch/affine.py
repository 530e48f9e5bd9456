"""The server's half for affine heads: one matrix product over the features' ciphertexts. See `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.ckks import seal
from secure_infer.ckks.batch.answer import AnswerWriter
from secure_infer.ckks.batch.evaluator import Evaluation, Sums, Work
from secure_infer.ckks.batch.gemm import COLUMNS, Floats, Integers, canonical, chunks
from secure_infer.ckks.batch.plan import BatchPlan

_SHARES = (0.85, 0.02, 0.13)


@dataclass(frozen=True, eq=False)
class AffineProgram:
    """An affine head compiled for a plan; the server's alone. weights: int64 (K, d). bias: (K,), in logits."""

    plan: BatchPlan
    weights: Integers
    bias: Floats

    def evaluation(self) -> Evaluation:
        """A new batch."""
        return _AffineEvaluation(self.plan, self.weights, AnswerWriter(self.plan, self.bias), _SHARES)

    @property
    def memory(self) -> int:
        """Bytes that one evaluation takes at most, about."""
        primes, degree = self.plan.parameters.data_primes, self.plan.parameters.degree
        return Sums.bytes(self.weights, primes, degree) + 16 * self.plan.outputs * len(primes) * degree


class _AffineEvaluation(Evaluation):
    def _products(self, keys: Sequence[seal.RelinKeys]) -> Work:
        primes, degree = self.plan.parameters.data_primes, self.plan.parameters.degree
        products = np.empty((self.plan.outputs, 2, len(primes), degree), np.uint64)
        for index, (total, prime) in enumerate(zip(self._sums.by_prime, primes, strict=True)):
            for half in range(2):
                for part in chunks(degree, COLUMNS):
                    columns = slice(half * degree + part.start, half * degree + part.stop)
                    products[:, half, index, part] = canonical(total.result(slice(None), columns), prime)
            yield
        return products
