"""The coefficient plan's two halves side by side: what the client packs and reads, what the server executes.

See `plan` for the algorithm. The server's answer is an LWE ciphertext a logit: after the zero encryption and the flood
are added, only the coefficients of c0 that carry logits leave, and c1 is rounded to `answer_bits`. The client reads it
as the integer product <c1, s>: a server's bytes are never loaded into SEAL beside the secret key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.plan import CoefficientPlan, Privacy
from secure_infer.ckks.planner import integer_weights
from secure_infer.ckks.residues import centred, pack, unpack
from secure_infer.errors import AnswerRefused, InternalFault, MalformedRequest
from secure_infer.heads import Linear

# The client's half.


def pack_input(plan: CoefficientPlan, x: NDArray[np.float64]) -> NDArray[np.int64]:
    """One row x (d,), already held to the contract, as integer polynomials (ciphertexts, N)."""
    polynomials = np.zeros(plan.ciphertexts * plan.parameters.degree, np.int64)
    polynomials[: plan.features] = np.rint(x * float(plan.input_scale)).astype(np.int64)
    return polynomials.reshape(plan.ciphertexts, plan.parameters.degree)


def secret_rows(plan: CoefficientPlan, secret: NDArray[np.int8]) -> NDArray[np.float64]:
    """Matrix (answers_per_product, N): row t times c1 is the coefficient of c1·s that carries answer t.

    secret: the ternary secret polynomial (N,). (c1·s)_p = sum_j c1_j s_(p-j), where s_(i-N) counts as -s_i.
    """
    degree = plan.parameters.degree
    index = np.arange(degree)
    rows = np.empty((plan.answers_per_product, degree))
    for t in range(plan.answers_per_product):
        shifted = plan.position(t) - index
        rows[t] = np.where(shifted >= 0, secret[shifted], -secret[shifted % degree])
    return rows


def read_answer(plan: CoefficientPlan, rows: NDArray[np.float64], answers: Sequence[bytes]) -> NDArray[np.float64]:
    """Logits (K,) from one query's answers; `rows` as from `secret_rows`.

    Raises AnswerRefused when an answer is malformed or outside the range an honest server can return. The caller must
    not retry: whether an answer was refused tells a hostile server about the secret key.
    """
    degree, modulus = plan.parameters.degree, plan.answer_modulus
    bits = plan.answer_width
    if len(answers) != plan.products:
        raise AnswerRefused(f"answer: expected {plan.products} products, got {len(answers)}")
    try:
        values = np.stack([unpack(a, plan.padded_answers + degree, bits, "answer") for a in answers])
    except MalformedRequest as problem:
        raise AnswerRefused(problem.message) from None
    c0, c1 = values[:, : plan.answers_per_product], values[:, plan.padded_answers :]
    # Exact in float64: limbs of 30 bits, N <= 2^15 ternary terms.
    low = (c1 & np.uint64((1 << 30) - 1)).astype(np.float64) @ rows.T
    high = (c1 >> np.uint64(30)).astype(np.float64) @ rows.T if bits > 30 else np.zeros_like(low)
    step = plan.first_prime / modulus / plan.unit
    logits = np.array(
        [
            centred(int(c) + int(lo) + (int(hi) << 30), modulus) * step
            for c, lo, hi in zip(c0.ravel().tolist(), low.ravel(), high.ravel(), strict=True)
        ]
    )[: plan.outputs]
    if np.abs(logits).max() > plan.answer_limit:
        raise AnswerRefused(f"answer: a logit is outside the model's declared range of ±{plan.answer_range:g}")
    return logits


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
        bias = [round(float(b) * plan.unit) % plan.first_prime for b in linear.bias]
        padding = plan.products * plan.answers_per_product - len(bias)
        self._bias = np.array(bias + [0] * padding, np.uint64).reshape(plan.products, -1)

    @cached_property
    def _positions(self) -> NDArray[np.int64]:
        return np.array([self.plan.position(t) for t in range(self.plan.answers_per_product)])

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

    def evaluate(self, query: Sequence[seal.Ciphertext], blind: Callable[[], seal.Ciphertext] | None) -> list[bytes]:
        """The answers, one a product, to one query of `plan.ciphertexts` ciphertexts.

        blind: returns a fresh blind, used once; required exactly when the plan is both-private.
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
            answers.append(self._answer(product, total))
        return answers

    def _answer(self, product: int, total: seal.Ciphertext | None) -> bytes:
        plan, q0 = self.plan, self.plan.first_prime
        if total is None:  # input-private and all weights zero
            c0, c1 = np.zeros((2, plan.parameters.degree), np.uint64)
        else:
            c0, c1 = self._ring.finish(total)
        kept = np.zeros(plan.padded_answers, np.uint64)
        kept[: plan.answers_per_product] = (c0[self._positions] + self._bias[product]) % np.uint64(q0)
        # Coefficients of c0 past the last row are partial sums of weights: they do not leave.
        kept[len(plan.rows(product)) :] = 0
        values = np.concatenate([kept, c1])
        if not plan.answer_bits:
            return pack(values, plan.answer_width)
        rounded = np.rint(values.astype(np.float64) * (plan.answer_modulus / q0)).astype(np.uint64)
        return pack(rounded & np.uint64(plan.answer_modulus - 1), plan.answer_width)
