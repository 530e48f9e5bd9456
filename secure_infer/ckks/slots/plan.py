"""The slot plan as data: heads with hidden layers, one record a query.

A hidden layer of H units takes `period` slots (H rounded up to a power of two), repeated to the end of the n = N/2 slots.
The client packs the d features into D = d/2 complex columns u_j = x_j + i x_(j+D), laid out so that the server reaches
every column by few rotations ("extended diagonals"): with `shifts` rotations and `parts` blocks of the period,

    slot s of ciphertext c holds column c·C + ((s mod period) + shifts · (s div period mod parts)) mod C,  C = shifts · parts

For d = 8 (D = 4), 4 units, N = 16 (n = 8), 2 shifts, 2 parts:    slots   u0 u1 u2 u3 | u2 u3 u0 u1
Unit 0 sits in slots 0 and 4. Rotations by 0 and 1 bring it u0, u1 in slot 0 and u2, u3 in slot 4: all four columns once.
The server multiplies by the weights that belong there, sums over the rotations and over the parts, and adds the
conjugate, which turns (W_l - i W_r)/2 · (x_l + i x_r) into W_l x_l + W_r x_r.

The last layer needs no rotation. A plaintext with the slots sum_k w_kh zeta_s^(p_k), times the activations, has logit k in
coefficient p_k of the product: the sum over slots is the trace that every coefficient is (see `embedding`), and the
repetition of a layer over the slots makes other logits cancel when their positions differ modulo the number of copies.
Two share each place modulo that: they lie N/2 apart, and X^(N/2) is imaginary in every slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from secure_infer.ckks.plan import MAX_SWITCHING_KEYS, QueryPlan


@dataclass(frozen=True, kw_only=True)
class SlotPlan(QueryPlan):
    """See the module text.

    inputs: ciphertexts of a query. period, parts, shifts: powers of two.
    unit: value of a logit of one in the answer, modulo the first prime.
    moves: (Galois element, highest level at which it is applied) of each key. products_at: the highest level at which a
    product is relinearised.
    """

    inputs: int
    period: int
    parts: int
    shifts: int
    unit: float
    moves: tuple[tuple[int, int], ...]
    products_at: int

    name = "slots"

    @property
    def slots(self) -> int:
        return self.parameters.degree // 2

    @property
    def columns(self) -> int:
        """Complex columns that one ciphertext carries."""
        return self.shifts * self.parts

    @property
    def ciphertexts(self) -> int:
        return self.inputs

    @property
    def answer_unit(self) -> float:
        return self.unit

    @property
    def blind_level(self) -> int:
        return 1

    @property
    def automorphisms(self) -> tuple[tuple[int, int], ...]:
        return self.moves

    @property
    def relinearisation(self) -> int:
        return self.products_at

    def position(self, row: int) -> int:
        """0, N/2, 1, N/2 + 1, ...: twice as many as a layer has copies do not meet."""
        return row // 2 + row % 2 * self.slots

    def check(self) -> None:
        for name in ("period", "parts", "shifts"):
            value = getattr(self, name)
            self.require(value >= 1 and value & (value - 1) == 0, f"{name}: expected a power of two, got {value}")
        self.require(
            self.period * self.parts <= self.slots and self.shifts <= self.period,
            f"layout: {self.parts} parts of {self.period} slots, {self.shifts} shifts do not fit {self.slots} slots",
        )
        self.require(
            1 <= self.inputs <= 64 and 2 * self.inputs * self.columns >= self.features,
            f"layout: {self.inputs} ciphertexts of {self.columns} columns do not hold {self.features} features",
        )
        levels, degree = len(self.parameters.data_primes), self.parameters.degree
        elements = [element for element, _ in self.moves]
        self.require(
            len(set(elements)) == len(elements) <= MAX_SWITCHING_KEYS
            and all(e % 2 and 1 < e < 2 * degree and 1 <= level <= levels for e, level in self.moves)
            and 1 <= self.products_at <= levels
            and levels > 1,
            "keys: they do not fit the ring",
        )
        self.require(math.isfinite(self.unit) and self.unit > 0, f"unit: expected a positive number, got {self.unit}")
        super().check()
        self.require(
            self.answers_per_product <= degree,
            f"packing: {self.answers_per_product} answers a product; {degree} fit",
        )
