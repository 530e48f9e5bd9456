"""What evaluations of a batch have in common: features arrive in order, any number at a time, and are summed up in groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence

from secure_infer.ckks import seal
from secure_infer.ckks.batch.answer import AnswerWriter, Blind
from secure_infer.ckks.batch.gemm import Accumulator, Integers, limb_bits
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.residues import Residues
from secure_infer.errors import InternalFault

GROUP_BYTES = 48 << 20
"""Residues kept until they are multiplied together: the more, the fewer passes over the sums."""

Work = Generator[None, None, Residues]
"""A long computation that yields between its steps and returns residues."""


class Sums:
    """weights (rows, count), int64, times `count` ciphertexts (2, primes, N): one accumulator a prime, fed in groups."""

    def __init__(self, weights: Integers, primes: Sequence[int], degree: int) -> None:
        self.by_prime = [Accumulator(weights, 2 * degree, prime) for prime in primes]
        self.added = 0
        self._count = weights.shape[1]
        self._waiting: list[Residues] = []

    @staticmethod
    def bytes(weights: Integers, primes: Sequence[int], degree: int) -> int:
        """Memory of such sums, the group that waits included."""
        limbs = sum(-(-prime.bit_length() // limb_bits(weights, prime.bit_length())) for prime in primes)
        return 16 * degree * len(weights) * limbs + GROUP_BYTES

    def add(self, ciphertext: Residues) -> None:
        """Adds the next one."""
        self._waiting.append(ciphertext)
        if len(self._waiting) * ciphertext.nbytes < GROUP_BYTES and self.added + len(self._waiting) < self._count:
            return
        for index, total in enumerate(self.by_prime):
            total.add(self.added, [each[:, index].reshape(-1) for each in self._waiting])
        self.added += len(self._waiting)
        self._waiting.clear()

    @property
    def next(self) -> int:
        """The number of the ciphertext that comes next."""
        return self.added + len(self._waiting)


class Evaluation(ABC):
    """One batch under way. Holds sums, never the whole query; used by one thread, once.

    weights: int64 (rows, d), the first layer's. shares: parts of the time, about, that taking in features, products and
    answers take.
    """

    def __init__(
        self, plan: BatchPlan, weights: Integers, writer: AnswerWriter, shares: tuple[float, float, float]
    ) -> None:
        self.plan = plan
        self.done = 0.0
        self._sums = Sums(weights, plan.parameters.data_primes, plan.parameters.degree)
        self._writer = writer
        self._shares = shares

    def add(self, ciphertext: Residues) -> None:
        """The next feature, (2, data primes, N), checked to be below the primes."""
        if self._sums.next == self.plan.features:
            raise InternalFault(f"batch: got more than {self.plan.features} features")
        self._sums.add(ciphertext)
        self.done = self._shares[0] * self._sums.added / self.plan.features

    def answers(self, blind: Blind | None, keys: Sequence[seal.RelinKeys] = ()) -> Iterator[bytes | None]:
        """Yields the answers (K) in order once all features were added, and None between other steps of the work.

        blind, keys: see `AnswerWriter.write`. Between steps `done` says how far it is, from 0 to 1.
        """
        if self._sums.added != self.plan.features:
            raise InternalFault(f"batch: expected {self.plan.features} features, got {self._sums.next}")
        products = yield from self._products(keys)
        self._sums.by_prime.clear()
        for output in range(self.plan.outputs):
            self.done = 1 - self._shares[2] * (1 - (output + 1) / self.plan.outputs)
            yield self._writer.write(output, products[output], blind, keys)

    def _reached(self, part: float) -> None:
        """That part of the products is made, from 0 to 1."""
        self.done = self._shares[0] + self._shares[1] * part

    @abstractmethod
    def _products(self, keys: Sequence[seal.RelinKeys]) -> Work:
        """(K, parts, primes left, N)."""
