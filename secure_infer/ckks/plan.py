"""The coefficient plan as data: a linear head, one product, no rotation, no evaluation key.

The client puts features into coefficients, the server multiplies by a polynomial of reversed weight rows, and each
logit appears in one known coefficient. For d = 2 features and K = 2 outputs, N = 4:

    x(X) = x0 + x1 X
    w(X) = w01 + w00 X + w11 X² + w10 X³             row k, reversed, starts at coefficient k·d
    x·w  = ... + (w00 x0 + w01 x1) X + ... + (w10 x0 + w11 x1) X³      logit k is coefficient k·d + d - 1

floor(N/d) rows fit one product; further rows take further products, and features beyond N take further ciphertexts.
Everything is an exact integer: x travels as round(x · input_scale), w is round(w · weight_scale), and an answer is
logit · unit modulo the first prime, unit = input_scale · weight_scale / (dropped primes).

The plan is public: equal on both sides, identified by its digest, and holds nothing of the weights but figures rounded
up (the range to a power of two, smudging to whole bits).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property

from secure_infer.ckks.parameters import SECURITY_BITS, Parameters
from secure_infer.ckks.residues import packed_bytes, residue_bytes
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import PlanRefused
from secure_infer.heads import InputContract

NOISE = 3.24
"""Standard deviation of SEAL's fresh noise (centred binomial with variance 10.5)."""

WINDOW = 2.1
"""Least q0/unit as a multiple of the range: a value that wrapped around the modulus would look valid."""

SIGMAS = 6.0
PK0_SHARE = 0.05
"""Largest share of a zero encryption's ternary randomness that a forged public key may read from the answers."""

MAX_ANSWER_BYTES = 48 << 20
MAX_READING = 1 << 23  # elements of the matrix with which a client reads answers
CALL_BYTES = 2 << 20


class Privacy(StrEnum):
    """What a plan hides from whom; the operator's choice, the client may only ask for more."""

    INPUT_PRIVATE = "input-private"
    """The server learns nothing; the model is NOT hidden from the key holder, who can divide it out of one answer."""
    BOTH_PRIVATE = "both-private"
    """Besides, answers are blinded and flooded, so that they hold the logits and nothing else of the model."""

    @property
    def rank(self) -> int:
        return list(Privacy).index(self)


@dataclass(frozen=True)
class CoefficientPlan:
    """See the module text. Lengths are in elements, `flood` and `error_bound` in logits.

    answers_per_product: rows of the head in one product.
    answer_range: |logit| never exceeds it on an input that keeps the contract; a power of two.
    flood: standard deviation of the Gaussian added to every logit; 0 when input-private.
    smudging_bits: log2(flood / rms evaluation noise), rounded down; 0 when input-private.
    error_bound: |answer - exact logit| is below it except with `failure_probability` a query.
    answer_bits: bits kept of each coefficient of c1; 0 keeps it exactly.
    """

    parameters: Parameters
    privacy: Privacy
    features: int
    outputs: int
    answers_per_product: int
    input_scale: int
    weight_scale: int
    answer_range: float
    flood: float
    smudging_bits: int
    error_bound: float
    failure_probability: float
    answer_bits: int

    name = "coefficient"

    # Geometry.

    @property
    def span(self) -> int:
        """Coefficients from one row's answer to the next: min(d, N)."""
        return min(self.features, self.parameters.degree)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of one query."""
        return -(-self.features // self.parameters.degree)

    @property
    def products(self) -> int:
        """Answers of one query: groups of `answers_per_product` rows."""
        return -(-self.outputs // self.answers_per_product)

    def rows(self, product: int) -> range:
        """The head's rows that product number `product` evaluates."""
        start = product * self.answers_per_product
        return range(start, min(start + self.answers_per_product, self.outputs))

    def position(self, row: int) -> int:
        """The coefficient that carries the answer of the `row`-th row of a product."""
        return row * self.span + self.span - 1

    # Scales.

    @property
    def first_prime(self) -> int:
        return self.parameters.data_primes[0]

    @property
    def unit(self) -> float:
        """Value of a logit of one in the answer, modulo the first prime."""
        return self.input_scale * self.weight_scale / (self.parameters.data_modulus // self.first_prime)

    @property
    def answer_modulus(self) -> int:
        """Modulus of the coefficients sent: 2**answer_bits, or the first prime where they are exact."""
        return 1 << self.answer_bits if self.answer_bits else self.first_prime

    @property
    def answer_width(self) -> int:
        """Bits of a coefficient sent."""
        return self.answer_bits or self.first_prime.bit_length()

    @property
    def answer_limit(self) -> float:
        """Largest |answer| an honest server returns, its error beyond nine sigma included; larger ones are refused."""
        return self.answer_range + 1.5 * self.error_bound

    # Costs.

    @property
    def query_bytes(self) -> int:
        return self.ciphertexts * (residue_bytes(self.parameters.degree, self.parameters.data_primes) + SEED_BYTES)

    @property
    def answer_bytes(self) -> int:
        return self.products * self.product_bytes

    @property
    def product_bytes(self) -> int:
        """Bytes of one product's answer: the coefficients of c0 that are sent, and all of c1."""
        return packed_bytes(self.parameters.degree + self.padded_answers, self.answer_width)

    @property
    def padded_answers(self) -> int:
        """Coefficients of c0 sent with a product: the answers, made an even number."""
        return self.answers_per_product + self.answers_per_product % 2

    @property
    def key_bytes(self) -> int:
        """Size of the public key a client uploads once; there are no evaluation keys."""
        if self.privacy is Privacy.INPUT_PRIVATE:
            return 0
        return residue_bytes(self.parameters.degree, self.parameters.primes) + SEED_BYTES

    @property
    def queries_per_call(self) -> int:
        """Queries that one call carries: as many as keep request and response within CALL_BYTES, at least one."""
        return max(1, min(64, CALL_BYTES // max(self.query_bytes, self.answer_bytes)))

    @property
    def security_bits(self) -> int:
        return SECURITY_BITS

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of every field."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """Every field, as JSON can hold it."""
        return {"plan": self.name, **asdict(self)}

    # Checks.

    def check(self) -> None:
        """Raise PlanRefused unless the plan is sound in itself; a compiled plan is held to it, and so is an offered one."""
        per, degree, unit = self.answers_per_product, self.parameters.degree, self.unit
        _require(
            self.features >= 1 and self.outputs >= 1, f"shape: got {self.features} features, {self.outputs} outputs"
        )
        _require(
            1 <= per <= max(1, degree // self.span) and (self.ciphertexts == 1 or per == 1),
            f"packing: {per} rows of {self.span} coefficients do not fit N = {degree}",
        )
        _require(per * degree <= MAX_READING, f"packing: reading {per} answers of N = {degree} takes too much memory")
        for name, value in (("input_scale", self.input_scale), ("weight_scale", self.weight_scale)):
            _require(1 <= value < 1 << 62, f"{name}: expected 1 to 2^62, got {value}")
        positive = (self.answer_range, self.error_bound, self.failure_probability)
        _require(
            all(math.isfinite(v) and v > 0 for v in positive), "range, error and probability: expected positive numbers"
        )
        _require(
            math.frexp(self.answer_range)[0] == 0.5, f"answer_range: expected a power of two, got {self.answer_range}"
        )
        _require(
            self.first_prime / unit >= WINDOW * self.answer_range
            and self.answer_limit <= WINDOW / 2 * self.answer_range,
            f"range: answers up to {self.answer_range:g} could wrap around the modulus (q0/unit = {self.first_prime / unit:g})",
        )
        _require(
            self.answer_bits % 4 == 0 and 0 <= self.answer_bits <= 52,
            f"answer_bits: expected 0 or a multiple of 4 up to 52, got {self.answer_bits}",
        )
        _require(
            self.answer_bytes <= MAX_ANSWER_BYTES,
            f"answer: {self.answer_bytes} bytes; expected at most {MAX_ANSWER_BYTES}",
        )
        if self.privacy is Privacy.INPUT_PRIVATE:
            _require(self.flood == 0 and self.smudging_bits == 0, "input-private: expected no flood")
            return
        _require(self.flood > 0 and self.smudging_bits > 0, "both-private: expected a flood")
        _require(SIGMAS * self.flood <= self.error_bound, "error_bound: smaller than six sigma of the flood")
        _require(
            per == 1 or per <= self.forged_key_cap(self.parameters.degree, self.first_prime / unit, self.flood),
            f"packing: {per} answers under one zero encryption give a forged public key more than {PK0_SHARE:.0%} of it",
        )

    @staticmethod
    def forged_key_cap(degree: int, window: float, flood: float) -> int:
        """Answers one zero encryption can blind against a key holder who forged pk0 (at least one).

        window: the answers' modulus in logits, q0/unit. Each answer lets log2(window / 12 sigma) bits about the ternary
        randomness u, which has log2(3) N bits, be read reliably.
        """
        bits = math.log2(max(2.0, window / (12 * flood)))
        return max(1, int(PK0_SHARE * 1.58 * degree / bits))

    def check_for(self, contract: InputContract, outputs: int, privacy: Privacy) -> None:
        """Raise PlanRefused unless a client with that contract may use the plan; offered plans come from the server."""
        self.check()
        _require(
            (self.features, self.outputs) == (contract.features, outputs),
            f"shape: the model has {contract.features} features and {outputs} outputs, the plan {self.features}, {self.outputs}",
        )
        _require(
            contract.bound * self.input_scale < 2.0**62, "input_scale: the model's input bound does not fit 62 bits"
        )
        _require(self.privacy.rank >= privacy.rank, f"privacy: asked for {privacy}, offered {self.privacy}")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise PlanRefused(f"coefficient plan: {problem}")
