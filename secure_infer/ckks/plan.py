"""What every plan is: the public recipe of one encrypted evaluation, equal on both sides, identified by its digest.

A plan holds nothing of the weights but figures rounded up (the range to a power of two, smudging to whole bits). The
kinds of plans are `coefficient` (affine heads), `slots` (hidden layers) and `batch` (many records).

Everything is an exact integer modulo the primes: a feature travels as round(x · input_scale), and an answer is
logit · unit modulo the first prime.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
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

DEFAULT_ERROR = 1e-3
DEFAULT_SMUDGING = 18
MAX_SMUDGING = 40

MAX_ANSWER_BYTES = 48 << 20
MAX_KEY_BYTES = 256 << 20
MAX_QUERY_BYTES = 64 << 20
MAX_READING = 1 << 23  # elements of the matrix with which a client reads answers
MAX_SWITCHING_KEYS = 64
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


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """What all plans state. Lengths are in elements, `flood`, `answer_range` and `error_bound` in logits.

    features, outputs: widths of what is encrypted and of the answer.
    input_scale: features travel as integers, feature times this.
    answer_range: |logit| never exceeds it on an input that keeps the contract; a power of two.
    flood: standard deviation of the Gaussian added to every logit; 0 when input-private.
    smudging_bits: log2(flood / rms evaluation noise), rounded down; 0 when input-private.
    error_bound: |answer - exact logit| is below it except with `failure_probability` a query.
    answer_bits: bits kept of each coefficient of an answer; 0 keeps it exactly.
    """

    parameters: Parameters
    privacy: Privacy
    features: int
    outputs: int
    input_scale: int
    answer_range: float
    flood: float
    smudging_bits: int
    error_bound: float
    failure_probability: float
    answer_bits: int

    name = ""

    @property
    def kind(self) -> str:
        """How the plan is called where people choose between plans."""
        return self.name

    # Geometry.

    @property
    @abstractmethod
    def ciphertexts(self) -> int:
        """Ciphertexts of one query."""

    @property
    @abstractmethod
    def products(self) -> int:
        """Answers of one query; each takes a blind."""

    # Scales.

    @property
    @abstractmethod
    def answer_unit(self) -> float:
        """Value of a logit of one in the answer, modulo the first prime."""

    @property
    @abstractmethod
    def blind_level(self) -> int:
        """Data primes left where the blind is added."""

    @property
    def blind_unit(self) -> float:
        """Value of a logit of one where the blind is added."""
        return self.answer_unit * math.prod(self.parameters.data_primes[1 : self.blind_level])

    @abstractmethod
    def flooded(self) -> Sequence[int]:
        """The coefficients of a product that carry answers, and so the flood."""

    @property
    def first_prime(self) -> int:
        return self.parameters.data_primes[0]

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

    # Keys.

    @property
    def automorphisms(self) -> tuple[tuple[int, int], ...]:
        """(Galois element, level at which it is applied) of every key the server needs; none by default."""
        return ()

    @property
    def relinearisation(self) -> int:
        """The level at which products are relinearised; 0: no key is needed."""
        return 0

    @property
    def part_keys(self) -> int:
        """Switching keys for further parts of a ciphertext, at the top level; none by default."""
        return 0

    @property
    def public_primes(self) -> tuple[int, ...]:
        """The primes modulo which the public key is needed: those of the level above the blind's."""
        if self.blind_level == len(self.parameters.data_primes):
            return self.parameters.primes
        return self.parameters.data_primes[: self.blind_level + 1]

    def switching_primes(self, level: int) -> tuple[int, ...]:
        """The primes modulo which a switching key used at that level is needed."""
        return (*self.parameters.data_primes[:level], self.parameters.primes[-1])

    def switching_bytes(self, level: int) -> int:
        """Bytes of one switching key used at that level: one polynomial and a seed for each prime left."""
        return level * (residue_bytes(self.parameters.degree, self.switching_primes(level)) + SEED_BYTES)

    @cached_property
    def key_bytes(self) -> int:
        """Size of the key material a client uploads once: the public key, then the switching keys."""
        levels = [level for _, level in self.automorphisms] + [self.relinearisation] * bool(self.relinearisation)
        levels += [len(self.parameters.data_primes)] * self.part_keys
        switching = sum(self.switching_bytes(level) for level in levels)
        if self.privacy is Privacy.INPUT_PRIVATE:
            return switching
        return residue_bytes(self.parameters.degree, self.public_primes) + SEED_BYTES + switching

    # Costs.

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext of a query."""
        return residue_bytes(self.parameters.degree, self.parameters.data_primes) + SEED_BYTES

    @property
    def query_bytes(self) -> int:
        return self.ciphertexts * self.ciphertext_bytes

    @property
    def answer_bytes(self) -> int:
        return self.products * self.product_bytes

    @property
    @abstractmethod
    def product_bytes(self) -> int:
        """Bytes of one product's answer."""

    @property
    def queries_per_call(self) -> int:
        """Queries that one call carries: as many as keep request and response within CALL_BYTES, at least one."""
        return max(1, min(64, CALL_BYTES // max(self.query_bytes, self.answer_bytes)))

    @property
    def security_bits(self) -> int:
        return SECURITY_BITS

    # Identity and checks.

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of every field."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """Every field, as JSON can hold it."""
        return {"plan": self.name, **asdict(self)}

    def check(self) -> None:
        """Raise PlanRefused unless the plan is sound in itself; a compiled plan is held to it, and so is an offered one."""
        self.require(
            self.features >= 1 and self.outputs >= 1, f"shape: got {self.features} features, {self.outputs} outputs"
        )
        self.require(1 <= self.input_scale < 1 << 62, f"input_scale: expected 1 to 2^62, got {self.input_scale}")
        positive = (self.answer_range, self.error_bound, self.failure_probability, self.answer_unit)
        self.require(
            all(math.isfinite(v) and v > 0 for v in positive), "range, error and probability: expected positive numbers"
        )
        self.require(
            math.frexp(self.answer_range)[0] == 0.5, f"answer_range: expected a power of two, got {self.answer_range}"
        )
        window = self.first_prime / self.answer_unit
        self.require(
            window >= WINDOW * self.answer_range and self.answer_limit <= WINDOW / 2 * self.answer_range,
            f"range: answers up to {self.answer_range:g} could wrap around the modulus (q0/unit = {window:g})",
        )
        self.require(
            self.answer_bits % 4 == 0 and 0 <= self.answer_bits <= 52,
            f"answer_bits: expected 0 or a multiple of 4 up to 52, got {self.answer_bits}",
        )
        self.require(
            self.answer_bytes <= MAX_ANSWER_BYTES,
            f"answer: {self.answer_bytes} bytes; expected at most {MAX_ANSWER_BYTES}",
        )
        self.require(self.key_bytes <= MAX_KEY_BYTES, f"keys: {self.key_bytes} bytes; expected at most {MAX_KEY_BYTES}")
        if self.privacy is Privacy.INPUT_PRIVATE:
            self.require(self.flood == 0 and self.smudging_bits == 0, "input-private: expected no flood")
        else:
            self.require(self.flood > 0 and self.smudging_bits > 0, "both-private: expected a flood")
            self.require(SIGMAS * self.flood <= self.error_bound, "error_bound: smaller than six sigma of the flood")

    def check_for(self, contract: InputContract, outputs: int, privacy: Privacy) -> None:
        """Raise PlanRefused unless a client whose rows keep that contract may use the plan; a server offered it."""
        self.check()
        self.require(
            (self.features, self.outputs) == (contract.features, outputs),
            f"shape: the model has {contract.features} features and {outputs} outputs, the plan {self.features}, {self.outputs}",
        )
        self.require(
            self.largest_encoded(contract) * self.input_scale < 2.0**62,
            "input_scale: the model's input bound does not fit 62 bits",
        )
        self.require(self.privacy.rank >= privacy.rank, f"privacy: asked for {privacy}, offered {self.privacy}")

    def largest_encoded(self, contract: InputContract) -> float:
        """The largest |number| that is scaled and rounded, on rows that keep the contract."""
        return contract.bound

    def require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise PlanRefused(f"{self.name} plan: {problem}")


@dataclass(frozen=True, kw_only=True)
class QueryPlan(Plan):
    """A plan of single queries, whose logits are coefficients of the answers: LWE ciphertexts under one c1.

    answers_per_product: rows of the head that one product answers.
    """

    answers_per_product: int

    @abstractmethod
    def position(self, row: int) -> int:
        """The coefficient that carries the answer of the `row`-th row of a product."""

    def flooded(self) -> Sequence[int]:
        return [self.position(row) for row in range(self.answers_per_product)]

    @property
    def products(self) -> int:
        return -(-self.outputs // self.answers_per_product)

    def rows(self, product: int) -> range:
        """The head's rows that product number `product` answers."""
        start = product * self.answers_per_product
        return range(start, min(start + self.answers_per_product, self.outputs))

    @property
    def padded_answers(self) -> int:
        """Coefficients of c0 sent with a product: the answers, made an even number."""
        return self.answers_per_product + self.answers_per_product % 2

    @property
    def product_bytes(self) -> int:
        """The coefficients of c0 that are sent, and all of c1."""
        return packed_bytes(self.parameters.degree + self.padded_answers, self.answer_width)

    def check(self) -> None:
        per, degree = self.answers_per_product, self.parameters.degree
        self.require(per >= 1, f"packing: expected at least one answer a product, got {per}")
        super().check()
        self.require(
            self.query_bytes <= MAX_QUERY_BYTES, f"query: {self.query_bytes} bytes; expected at most {MAX_QUERY_BYTES}"
        )
        self.require(
            per * degree <= MAX_READING, f"packing: reading {per} answers of N = {degree} takes too much memory"
        )
        if self.privacy is Privacy.BOTH_PRIVATE:
            cap = forged_key_cap(degree, self.first_prime / self.answer_unit, self.flood)
            self.require(
                per == 1 or per <= cap,
                f"packing: {per} answers under one zero encryption give a forged public key more than {PK0_SHARE:.0%} of it",
            )


def forged_key_cap(degree: int, window: float, flood: float) -> int:
    """Answers one zero encryption can blind against a key holder who forged pk0 (at least one).

    window: the answers' modulus in logits, q0/unit. Each answer lets log2(window / 12 sigma) bits about the ternary
    randomness u, which has log2(3) N bits, be read reliably.
    """
    bits = math.log2(max(2.0, window / (12 * flood)))
    return max(1, int(PK0_SHARE * 1.58 * degree / bits))


def rounding_noise(degree: int) -> float:
    """Standard deviation of a coefficient after both halves were rounded, seen through a ternary secret."""
    return math.sqrt(degree / 18 + 1)


def answer_bits(parameters: Parameters, unit: float, flood: float) -> int:
    """Least multiple of four that makes rounding the answer's coefficients a small part of the flood; 0: keep all."""
    q0 = parameters.data_primes[0]
    bits = math.ceil(math.log2(rounding_noise(parameters.degree) * q0 / unit / (0.15 * flood)) / 4) * 4
    return bits if bits < q0.bit_length() else 0


def power_of_two(value: float) -> float:
    """The least power of two that is at least `value`."""
    return 2.0 ** math.ceil(math.log2(value))


def coarse(value: float, bits: int = 5) -> float:
    """`value` rounded up to a few significant bits: what a figure of the weights may tell when it is published."""
    step = 2.0 ** (math.floor(math.log2(value)) - bits + 1)
    return math.ceil(value / step) * step


def two_digits(bound: float) -> float:
    """`bound` rounded up to two significant digits."""
    digit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return float(f"{math.ceil(bound / digit) * digit:.2g}")
