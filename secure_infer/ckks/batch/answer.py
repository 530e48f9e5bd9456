"""From evaluated residues to what is sent: blind, drop primes, bias, rounding. The server's side of `packing.read_batch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.batch.keys import switched
from secure_infer.ckks.batch.plan import BatchPlan, Layout
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import Residues, add, pack, switch_modulus
from secure_infer.errors import InternalFault

Blind = Callable[[], Residues]
"""Returns a fresh blind (2, primes left, N), used once."""


class AnswerWriter:
    """Turns products into answers for one plan; bias (K,) in logits."""

    def __init__(self, plan: BatchPlan, bias: NDArray[np.float64]) -> None:
        self._plan = plan
        self._ring = seal.ring(plan.parameters)
        self._bias = [round(float(b) * plan.unit) % plan.first_prime for b in bias]

    def write(self, output: int, parts: Residues, blind: Blind | None, keys: Sequence[seal.RelinKeys] = ()) -> bytes:
        """The answer of one output from its residues (2 or 6 parts, primes left, N) in NTT form.

        blind: required exactly when the plan is both-private. keys: one for each part beyond the second.
        """
        plan, q0 = self._plan, np.uint64(self._plan.first_prime)
        if (blind is None) != (plan.privacy is Privacy.INPUT_PRIVATE):
            raise InternalFault(f"a {plan.privacy} plan was evaluated with the wrong blinding")
        if blind is not None:
            parts[:2] = add(parts[:2], blind(), plan.parameters.data_primes[: plan.level])
        if not parts[1:].any():  # input-private and all weights zero: SEAL refuses such a ciphertext
            halves = np.zeros((2, plan.parameters.degree), np.uint64)
        else:
            halves = self._ring.finish(switched(self._ring, parts, keys)).copy()
        bias = np.uint64(self._bias[output])
        if plan.layout is Layout.COEFFICIENTS:
            halves[0] = (halves[0] + bias) % q0
        else:  # the constant b + ib in every slot
            middle = plan.parameters.degree // 2
            halves[0, [0, middle]] = (halves[0, [0, middle]] + bias) % q0
        if not plan.answer_bits:
            return pack(halves.ravel(), plan.answer_width)
        return pack(switch_modulus(list(halves), plan.first_prime, plan.answer_bits), plan.answer_width)
