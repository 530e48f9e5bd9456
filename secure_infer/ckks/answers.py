"""Answers of single queries: one LWE ciphertext a logit, both halves side by side.

After the zero encryption and the flood are added, only the coefficients of c0 that carry logits leave, and c1 is rounded
to `answer_bits`. The client reads a logit as the integer product <c1, s>: a server's bytes are never loaded into SEAL
beside the secret key. For N = 4 and the answer in coefficient p = 1 of c0 + c1·s, s = (s0, s1, s2, s3):

    c0[1] + (c1[0] s1 + c1[1] s0 - c1[2] s3 - c1[3] s2)        c1's coefficient j meets s's p - j, negated where it wraps
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.residues import Residues, centred, pack, switch_modulus, unpack
from secure_infer.errors import AnswerRefused, MalformedRequest

_LIMB = 30

# The client's half.


def secret_rows(plan: QueryPlan, secret: NDArray[np.int8]) -> NDArray[np.float64]:
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


def read_answer(plan: QueryPlan, rows: NDArray[np.float64], answers: Sequence[bytes]) -> NDArray[np.float64]:
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
    low = (c1 & np.uint64((1 << _LIMB) - 1)).astype(np.float64) @ rows.T
    high = (c1 >> np.uint64(_LIMB)).astype(np.float64) @ rows.T if bits > _LIMB else np.zeros_like(low)
    step = plan.first_prime / modulus / plan.answer_unit
    logits = np.array(
        [
            centred(int(c) + int(lo) + (int(hi) << _LIMB), modulus) * step
            for c, lo, hi in zip(c0.ravel().tolist(), low.ravel(), high.ravel(), strict=True)
        ]
    )[: plan.outputs]
    if not np.abs(logits).max() <= plan.answer_limit:  # so that NaN is refused too
        raise AnswerRefused(f"answer: a logit is outside the model's declared range of ±{plan.answer_range:g}")
    return logits


# The server's half.


class AnswerWriter:
    """Turns evaluated products into what is sent; adds the biases (K,), in logits, exactly."""

    def __init__(self, plan: QueryPlan, bias: NDArray[np.float64]) -> None:
        self._plan = plan
        rows = [plan.rows(product) for product in range(plan.products)]
        biases = [[round(float(bias[row]) * plan.answer_unit) % plan.first_prime for row in part] for part in rows]
        self._positions = np.array([*plan.flooded(), *[0] * (plan.padded_answers - plan.answers_per_product)])
        # Coefficients of c0 past the last row are partial sums of weights: they do not leave.
        self._kept = np.array([[t < len(part) for t in range(plan.padded_answers)] for part in rows], np.uint64)
        self._bias = np.array([part + [0] * (plan.padded_answers - len(part)) for part in biases], np.uint64)

    def write(self, product: int, c0: Residues, c1: Residues) -> bytes:
        """The bytes of a product from its coefficients (N,) modulo the first prime."""
        plan, q0 = self._plan, self._plan.first_prime
        kept = c0[self._positions]
        kept += self._bias[product]
        kept %= np.uint64(q0)
        kept *= self._kept[product]
        if not plan.answer_bits:
            return pack(np.concatenate([kept, c1]), plan.answer_width)
        return pack(switch_modulus([kept, c1], q0, plan.answer_bits), plan.answer_width)
