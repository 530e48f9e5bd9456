"""How two parties evaluate a model: public data, the same at both, at the client and, as recipes, at the dealer.

A program is a sequence of steps on a shared vector, in fixed point at `fraction` bits (f). For a head 384 -> 64 -> 10 with
squares, f = 18:

    affine 384 -> 64   t = W x + b        two times f bits, truncated to f
    powers (2,)        t² ; one round     two times f bits, truncated to f
    affine 64 -> 10    y = V t² + v       left at two times f bits: the client rescales

An affine step is local where the parties hold the weights, and takes one round where they hold shares of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from secure_infer.errors import PlanRefused
from secure_infer.heads.contract import InputContract
from secure_infer.mpc.comparison import Argmax, Relu, Signs
from secure_infer.mpc.correlations import MAX_WORDS, Need, Product, Recipe, Square, WeightProduct
from secure_infer.mpc.crypten import needs as crypten

MAX_FRACTION = 30
ROW_CLASSES: tuple[int, ...] = tuple(2**k for k in range(9))
"""Correlations are dealt for these numbers of rows; a request is padded to the next with rows of zeros."""
MAX_ROWS = ROW_CLASSES[-1]
SECURITY_BITS = 128
"""Of AES-256-CTR streams and TLS 1.3; shares themselves hide unconditionally."""


class Weights(StrEnum):
    """Who holds the weights: both parties all of them, or each a share."""

    REPLICATED = "replicated"
    SHARED = "shared"


class Answers(StrEnum):
    """What the client learns: logits, or the label and nothing else."""

    LOGITS = "logits"
    LABEL = "label"


class Comparisons(StrEnum):
    """How signs are found: by one-time truth tables (`secure_infer.mpc.comparison`), or by CrypTen's protocols."""

    TABLES = "tables"
    CRYPTEN = "crypten"


STEPS: dict[str, type[Step]] = {}


@dataclass(frozen=True)
class Step:
    """One operation on a shared vector of `inputs` words."""

    op: ClassVar[str] = ""
    inputs: int

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        STEPS[cls.op] = cls

    @property
    def outputs(self) -> int:
        return self.inputs

    def as_dict(self) -> dict[str, Any]:
        return {"op": self.op, **asdict(self)}


@dataclass(frozen=True)
class Affine(Step):
    """W x + b with weight tensor number `tensor`; truncate: bits dropped from every sum."""

    op: ClassVar[str] = "affine"
    width: int
    tensor: int
    truncate: int

    @property
    def outputs(self) -> int:
        return self.width


@dataclass(frozen=True)
class Powers(Step):
    """All t to each of the exponents (from 1 to 4), one exponent after the other; powers are truncated by `truncate`."""

    op: ClassVar[str] = "powers"
    exponents: tuple[int, ...]
    truncate: int

    @property
    def outputs(self) -> int:
        return self.inputs * len(self.exponents)


@dataclass(frozen=True)
class Rectify(Step):
    """max(t, 0)."""

    op: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Largest(Step):
    """The place of the largest, as `comparison.argmax` shares it."""

    op: ClassVar[str] = "argmax"


@dataclass(frozen=True)
class Positive(Step):
    """Whether each is above zero, one bit each."""

    op: ClassVar[str] = "positive"


@dataclass(frozen=True)
class Program:
    """steps and settings as their types say. fraction, answer_fraction: bits of inputs and of logits.

    answer_range: no |logit| exceeds it, a power of two. error_bound: on each logit, at six standard deviations of what is
    random in it, `flood` included: the most that both parties together add to a logit at random, so that its last bits do not
    tell single weights behind hidden layers; zero for affine programs. failure_probability: that truncation spoils a record, at
    worst over inputs; spoilt logits are out of range.
    """

    weights: Weights
    answers: Answers
    comparisons: Comparisons
    steps: tuple[Step, ...]
    fraction: int
    answer_fraction: int
    answer_range: float
    error_bound: float
    flood: float
    failure_probability: float

    # What both sides compute from it.

    @property
    def kind(self) -> str:
        return "mpc"

    @property
    def features(self) -> int:
        return self.steps[0].inputs

    @property
    def outputs(self) -> int:
        return self.steps[-1].outputs

    @property
    def label_only(self) -> bool:
        return self.answers is Answers.LABEL

    def as_dict(self) -> dict[str, Any]:
        entry = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**entry, "steps": [step.as_dict() for step in self.steps]}

    def as_json(self) -> bytes:
        """Canonical: equal programs have equal bytes."""
        return json.dumps(self.as_dict(), sort_keys=True).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex."""
        return hashlib.sha256(self.as_json()).hexdigest()

    @classmethod
    def from_json(cls, data: bytes) -> Program:
        """Raises PlanRefused for anything that is no sound program."""
        try:
            entry = json.loads(data)
            steps = tuple(_step(step) for step in entry["steps"])
            program = cls(
                Weights(entry["weights"]),
                Answers(entry["answers"]),
                Comparisons(entry["comparisons"]),
                steps,
                *(int(entry[name]) for name in ("fraction", "answer_fraction")),
                *(float(entry[name]) for name in ("answer_range", "error_bound", "flood", "failure_probability")),
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
            raise PlanRefused("program: expected JSON as `Program.as_json` writes it") from None
        if program.as_json() != data:
            raise PlanRefused("program: its JSON is not canonical")
        program._check()
        return program

    def _check(self) -> None:
        sound = (
            0 < len(self.steps) <= 64
            and all(a.outputs == b.inputs for a, b in zip(self.steps, self.steps[1:], strict=False))
            and 0 < self.fraction <= MAX_FRACTION
            and 0 <= self.answer_fraction <= 2 * MAX_FRACTION
            and all(0 < v < math.inf for v in (self.answer_range, self.error_bound))
            and 0 <= self.flood < self.error_bound
            and 0 <= self.failure_probability <= 1
            and self.answer_range * 2.0**self.answer_fraction <= 2.0**62
        )
        if not sound:
            raise PlanRefused("program: its steps do not fit together, or its numbers are out of range")

    def check_for(self, contract: InputContract, outputs: int) -> None:
        """Raise PlanRefused unless the program takes what the contract allows, and answers that many logits."""
        if (self.features, self.outputs) != (contract.features, outputs):
            raise PlanRefused(
                f"program: expected {contract.features} features and {outputs} outputs, got {self.features} and {self.outputs}"
            )
        if contract.bound * 2.0**self.fraction >= 2.0**62:
            raise PlanRefused(f"program: {self.fraction} fraction bits leave no room for inputs to {contract.bound:g}")

    # What a request takes.

    def recipe(self, rows: int, model: str = "") -> Recipe | None:
        """The correlations of a request of at most `rows` records, for the next class of rows; None when it takes none.

        model: its digest. Two models may have one program, but shared weights of each take a mask of their own: under one
        mask, the openings W - b and V - b would show W - V. Raises PlanRefused beyond MAX_ROWS.
        """
        return _recipe(self, row_class(rows), model if self.weights is Weights.SHARED else "")

    def needs(self, rows: int) -> tuple[Need, ...]:
        found: list[Need] = []
        for step in self.steps:
            found += _needs(self, step, rows)
        return tuple(found)

    @cached_property
    def most_rows(self) -> int:
        """Records of the largest request."""
        fitting = [rows for rows in ROW_CLASSES if (r := self.recipe(rows)) is None or r.words(1) <= MAX_WORDS]
        return fitting[-1] if fitting else 1

    def traffic(self, step: Step, rows: int) -> tuple[int, int]:
        """Rounds of one of its steps, and payload bytes that each party sends in them."""
        return _traffic(self, step, rows)

    @property
    def rounds(self) -> int:
        """Rounds between the parties; one at least, in which they agree on the request."""
        return max(1, sum(_traffic(self, step, 1)[0] for step in self.steps))

    def link_bytes(self, rows: int) -> int:
        """Payload bytes that each party sends the other."""
        return sum(_traffic(self, step, rows)[1] for step in self.steps)

    def share_bytes(self, rows: int) -> int:
        """Bytes of one half of a query."""
        return 8 * rows * self.features

    def answer_bytes(self, rows: int) -> int:
        """Bytes of one half of an answer."""
        return 8 * rows * self.outputs

    def correlation_bytes(self, rows: int) -> int:
        """Bytes that the dealer sends party 0 for a request; party 1 gets a seed."""
        recipe = self.recipe(rows)
        return 0 if recipe is None else 8 * recipe.correction_words


def row_class(rows: int) -> int:
    """The number of rows that correlations for a request of `rows` are dealt for."""
    for size in ROW_CLASSES:
        if rows <= size:
            return size
    raise PlanRefused(f"rows: expected at most {MAX_ROWS} in one request, got {rows}")


def _step(entry: dict[str, Any]) -> Step:
    cls = STEPS[entry.pop("op")]
    sizes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
    step = cls(**sizes)
    numbers = [step.inputs, step.outputs]
    if isinstance(step, Powers):
        if not step.exponents or any(type(e) is not int or not 1 <= e <= 4 for e in step.exponents):
            raise ValueError("exponents")
        numbers.append(step.truncate + 1)
    if isinstance(step, Affine):
        numbers += [step.tensor + 1, step.truncate + 1]
    if any(type(n) is not int or not 0 < n <= MAX_WORDS for n in numbers):
        raise ValueError("sizes")
    return step


@lru_cache(maxsize=256)
def _recipe(program: Program, rows: int, model: str) -> Recipe | None:
    needs = program.needs(rows)
    key = hashlib.sha256(f"{program.digest} {model}".encode()).hexdigest() if model else program.digest
    return Recipe(key, rows, needs) if needs else None


def _needs(program: Program, step: Step, rows: int) -> list[Need]:
    match step:
        case Affine() if program.weights is Weights.SHARED:
            return [WeightProduct(step.tensor, rows, step.inputs, step.width)]
        case Powers():
            products = sum(exponent > 2 for exponent in step.exponents)
            found: list[Need] = [Square(rows * step.inputs)] if max(step.exponents) > 1 else []
            return found + ([Product(rows * step.inputs * products)] if products else [])
        case Rectify() | Largest() | Positive() if program.comparisons is Comparisons.CRYPTEN:
            return _crypten_needs(step, rows)
        case Rectify():
            return [Relu(rows * step.inputs)]
        case Largest():
            return [Argmax(rows, step.inputs)]
        case Positive():
            return [Signs(rows * step.inputs)]
    return []


def _crypten_needs(step: Step, rows: int) -> list[Need]:
    match step:
        case Rectify():
            return list(crypten.relu_needs(rows * step.inputs))
        case Largest():
            return list(crypten.labels_needs(rows, step.inputs))
        case _:
            return list(crypten.positive_needs(rows * step.inputs))


def _traffic(program: Program, step: Step, rows: int) -> tuple[int, int]:
    """Rounds, and payload bytes of each party."""
    elements = rows * step.inputs
    match step:
        case Affine():
            return (1, 8 * elements) if program.weights is Weights.SHARED else (0, 0)
        case Powers():
            products = sum(exponent > 2 for exponent in step.exponents)
            rounds = (max(step.exponents) > 1) + (products > 0)
            return rounds, 8 * elements * ((max(step.exponents) > 1) + 2 * products)
        case Rectify() | Largest() | Positive() if program.comparisons is Comparisons.CRYPTEN:
            needs = _crypten_needs(step, rows)
            return crypten.rounds(needs), crypten.link_bytes(needs)
        case Rectify():
            return 3, 9 * elements + (elements + 7) // 8
        case Largest():
            pairs = rows * step.inputs * (step.inputs - 1) // 2
            return 3, 8 * elements + pairs + (pairs + 7) // 8
        case _:
            return 2, 9 * elements
