"""The coefficient plan as data: a linear head, one product, no rotation, no evaluation key.

The client puts features into coefficients, the server multiplies by a polynomial of reversed weight rows, and each
logit appears in one known coefficient. For d = 2 features and K = 2 outputs, N = 4:

    x(X) = x0 + x1 X
    w(X) = w01 + w00 X + w11 X² + w10 X³             row k, reversed, starts at coefficient k·d
    x·w  = ... + (w00 x0 + w01 x1) X + ... + (w10 x0 + w11 x1) X³      logit k is coefficient k·d + d - 1

floor(N/d) rows fit one product; further rows take further products, and features beyond N take further ciphertexts.
w travels nowhere: it is round(w · weight_scale), and unit = input_scale · weight_scale / (dropped primes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from secure_infer.ckks.coefficient.lift import MAX_LIFT, MAX_TERMS, count
from secure_infer.ckks.plan import QueryPlan
from secure_infer.heads import InputContract


@dataclass(frozen=True, kw_only=True)
class CoefficientPlan(QueryPlan):
    """See the module text.

    weight_scale: weights are integers, weight times this.
    lift: the degree of the monomials that travel, one for the features themselves; see `lift`. lift_norm: the norm they
    are divided by.
    """

    weight_scale: int
    lift: int = 1
    lift_norm: float = 1.0

    name = "coefficient"

    @property
    def kind(self) -> str:
        return "monomials" if self.lift > 1 else self.name

    @property
    def terms(self) -> int:
        """Numbers that travel: the features, or their monomials."""
        return count(self.features, self.lift)

    @property
    def span(self) -> int:
        """Coefficients from one row's answer to the next: min(terms, N)."""
        return min(self.terms, self.parameters.degree)

    @property
    def ciphertexts(self) -> int:
        return -(-self.terms // self.parameters.degree)

    def position(self, row: int) -> int:
        return row * self.span + self.span - 1

    @property
    def answer_unit(self) -> float:
        return self.input_scale * self.weight_scale / (self.parameters.data_modulus // self.first_prime)

    @property
    def blind_level(self) -> int:
        return len(self.parameters.data_primes)

    def largest_encoded(self, contract: InputContract) -> float:
        if self.lift == 1:
            return contract.bound
        return float(min(2.0**62, max(1.0, contract.largest_norm / self.lift_norm)) ** self.lift)

    def check(self) -> None:
        self.require(1 <= self.weight_scale < 1 << 62, f"weight_scale: expected 1 to 2^62, got {self.weight_scale}")
        self.require(
            1 <= self.lift <= MAX_LIFT
            and 0 < self.lift_norm < math.inf
            and (self.lift == 1 or self.terms <= MAX_TERMS),
            f"lift: expected a degree of 1 to {MAX_LIFT} and at most {MAX_TERMS} monomials",
        )
        super().check()
        per, degree = self.answers_per_product, self.parameters.degree
        self.require(
            per <= max(1, degree // self.span) and (self.ciphertexts == 1 or per == 1),
            f"packing: {per} rows of {self.span} coefficients do not fit N = {degree}",
        )
