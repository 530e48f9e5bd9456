"""The batch plan as data: many records in one query, one ciphertext a feature, no rotation.

Feature i of all records is one polynomial, so a layer of weights is a plain matrix product over ciphertexts. For two
features and two outputs, logits of every record at once:

    answer 0 = w00·ct0 + w01·ct1,   answer 1 = w10·ct0 + w11·ct1         weights are integers: round(w · scale)

layout "coefficients" (affine heads): record r is coefficient r; N records a batch, answers in the same places.
layout "slots" (hidden layers): records r and r + N/2 are the real part of slot r and its part along X^(N/2), whose square is
-1; N records as well. Polynomials act on slots; `quadratic` shows how both parts are squared at once.

Every coefficient of an answer carries a record, so each is flooded. For the same reason a zero encryption under a forged
public key, or a forged switching key, gives the whole product away: this plan hides the model only from key holders who
made all their keys honestly. Where that cannot be assumed, single queries (`coefficient`, `slots`) are the plans to use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from secure_infer.ckks.plan import WINDOW, Plan, Privacy
from secure_infer.ckks.residues import packed_bytes
from secure_infer.heads import InputContract

SWITCHED = 4
"""Switching keys of the slots layout: see `keys`."""

SLOT_BITS = 52
"""Features times `input_scale` stay below 2^52 in slots: the encoding is a float64 transform."""


class Layout(StrEnum):
    """Where a batch's records are."""

    COEFFICIENTS = "coefficients"
    SLOTS = "slots"


@dataclass(frozen=True, kw_only=True)
class BatchPlan(Plan):
    """See the module text.

    layout: where records are. level: data primes left where answers are blinded.
    unit: value of a logit of one in the answer, modulo the first prime.
    failure_probability: of any logit of a full batch.
    """

    layout: Layout
    level: int
    unit: float

    name = "batch"

    @property
    def records(self) -> int:
        """Records that one batch carries at most."""
        return self.parameters.degree

    @property
    def ciphertexts(self) -> int:
        return self.features

    @property
    def products(self) -> int:
        return self.outputs

    @property
    def answer_unit(self) -> float:
        return self.unit

    @property
    def blind_level(self) -> int:
        return self.level

    def flooded(self) -> Sequence[int]:
        return range(self.parameters.degree)

    @property
    def spread(self) -> float:
        """Standard deviation of a logit's error for one in every coefficient: slots add N/2 of them (the real part)."""
        return 1.0 if self.layout is Layout.COEFFICIENTS else math.sqrt(self.parameters.degree / 2)

    @property
    def part_keys(self) -> int:
        return SWITCHED if self.layout is Layout.SLOTS else 0

    @property
    def product_bytes(self) -> int:
        """Both halves."""
        return packed_bytes(2 * self.parameters.degree, self.answer_width)

    def check(self) -> None:
        super().check()
        self.require(self.layout in list(Layout), f"layout: got {self.layout!r}")
        self.require(
            1 <= self.level <= len(self.parameters.data_primes), f"level: got {self.level} of {self.parameters}"
        )
        largest = self.answer_range * (1.0 if self.layout is Layout.COEFFICIENTS else math.sqrt(2.0))
        window = self.first_prime / self.unit
        self.require(
            window >= WINDOW * largest,
            f"range: answers up to {self.answer_range:g} could wrap around the modulus (q0/unit = {window:g})",
        )
        self.require(
            self.layout is Layout.COEFFICIENTS or len(self.parameters.data_primes) > 1,
            "layout: slots need a chain of several primes, for switching keys",
        )

    def check_for(self, contract: InputContract, outputs: int, privacy: Privacy) -> None:
        super().check_for(contract, outputs, privacy)
        self.require(
            self.layout is Layout.COEFFICIENTS or contract.bound * self.input_scale < 2.0**SLOT_BITS,
            f"input_scale: the model's input bound does not fit {SLOT_BITS} bits",
        )
