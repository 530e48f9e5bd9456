"""The coefficient plan's two halves side by side: what the client packs, what the server executes. See `plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.answers import AnswerWriter
from secure_infer.ckks.coefficient.lift import lift
from secure_infer.ckks.coefficient.plan import CoefficientPlan
from secure_infer.ckks.coefficient.planner import integer_weights
from secure_infer.ckks.keymaterial import SwitchingKeys
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import InternalFault
from secure_infer.heads import Linear

# The client's half.


def pack_input(plan: CoefficientPlan, x: NDArray[np.float64]) -> NDArray[np.int64]:
    """One row x (d,), already held to the contract, as integer polynomials (ciphertexts, N)."""
    if plan.lift > 1:
        x = lift(x, plan.lift, plan.lift_norm)
    polynomials = np.zeros(plan.ciphertexts * plan.parameters.degree, np.int64)
    polynomials[: plan.terms] = np.rint(x * float(plan.input_scale)).astype(np.int64)
    return polynomials.reshape(plan.ciphertexts, plan.parameters.degree)


# The server's half.


class LinearEvaluator:
    """A linear head compiled for a plan: weights as exact NTT plaintexts, biases as integers.

    Evaluation per product: one multiplication a ciphertext, one addition of a blind, rescaling where the chain has
    several primes, one inverse transform.
    """

    def __init__(self, linear: Linear, plan: CoefficientPlan) -> None:
        plan.check()
        self.plan = plan
        self._ring = seal.ring(plan.parameters)
        weights = integer_weights(linear, plan.weight_scale)
        self._products = [
            self._polynomials(weights[rows.start : rows.stop]) for rows in map(plan.rows, range(plan.products))
        ]
        self._answers = AnswerWriter(plan, linear.bias)

    def _polynomials(self, rows: NDArray[np.int64]) -> list[seal.Plaintext | None]:
        """One plaintext a ciphertext; None where all weights are zero, which SEAL refuses to multiply by."""
        plan, degree = self.plan, self.plan.parameters.degree
        plaintexts: list[seal.Plaintext | None] = []
        for c in range(plan.ciphertexts):
            block = rows[:, c * degree : (c + 1) * degree]
            polynomial = np.zeros(degree, np.int64)
            for t, row in enumerate(block):
                end = plan.position(t) + 1
                polynomial[end - len(row) : end] = row[::-1]
            # In the last, shorter block x fills the low coefficients, so the reversed row ends at the same place.
            plaintexts.append(self._ring.plaintext(polynomial) if polynomial.any() else None)
        return plaintexts

    def evaluate(
        self,
        query: Sequence[seal.Ciphertext],
        blind: Callable[[], seal.Ciphertext] | None,
        keys: SwitchingKeys | None = None,
    ) -> list[bytes]:
        """The answers, one a product, to one query of `plan.ciphertexts` ciphertexts.

        blind: returns a fresh blind, used once; required exactly when the plan is both-private. keys: none are needed.
        """
        if (blind is None) != (self.plan.privacy is Privacy.INPUT_PRIVATE):
            raise InternalFault(f"a {self.plan.privacy} plan was evaluated with the wrong blinding")
        answers = []
        for product, plaintexts in enumerate(self._products):
            total = None if blind is None else blind()
            for ciphertext, plaintext in zip(query, plaintexts, strict=True):
                if plaintext is None:
                    continue
                term = self._ring.multiply(ciphertext, plaintext)
                if total is None:
                    total = term
                else:
                    self._ring.add_to(total, term)
            if total is None:  # input-private and all weights zero
                c0, c1 = np.zeros((2, self.plan.parameters.degree), np.uint64)
            else:
                c0, c1 = self._ring.finish(total)
            answers.append(self._answers.write(product, c0, c1))
        return answers
