"""What one query costs: work as counts of operations, and the seconds of each operation on a machine.

    at = {"degree": 8192, "primes": 3}  # N, data primes left
    work = Work.of(Operation.MULTIPLY_PLAIN, 12, **at) + Work.of(Operation.ROTATE, 5, **at)
    work.total(costs)  # seconds on one thread of the machine where `costs` were measured

Unit costs are measured at a few rings (`calibration`) and filled in by one law for each operation (`laws`). A server
publishes its measurements as JSON, so that a client can choose a plan with the server's figures and its own link.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from secure_infer.ckks import laws
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, MIN_PRIME_BITS
from secure_infer.errors import InternalFault, PlanRefused

LEAST_SECONDS, MOST_SECONDS = 1e-15, 3600.0
"""No operation is faster or slower than this on any machine; figures outside are refused."""

MAX_JSON_CHARACTERS = 1 << 16
_VERSION = 1
_MAX_PRIMES = max(MAX_MODULUS_BITS.values()) // MIN_PRIME_BITS


class Operation(StrEnum):
    """What is counted. Those of a ring cost by N and by the data primes that the ciphertext has left."""

    EXPAND = "expand"
    """A ciphertext from c0's residues and the seed of c1."""
    LOAD = "load"
    """A ciphertext from all its residues."""
    MULTIPLY_PLAIN = "multiply-plain"
    ADD = "add"
    MULTIPLY = "multiply"
    """Ciphertext by ciphertext, not relinearised."""
    SQUARE = "square"
    ROTATE = "rotate"
    """Any Galois automorphism, conjugation included: its cost is the key switch."""
    RELINEARISE = "relinearise"
    RESCALE = "rescale"
    """From k primes to k - 1, two halves; a ciphertext of three parts counts 1.5."""
    FINISH = "finish"
    """Out of NTT form, one prime, residues read."""
    ENCRYPT = "encrypt"
    """The client's fresh encryption: a seeded zero encryption, the message transformed and added; packing not included."""
    BLIND = "blind"
    """The server's zero encryption with a flood, usually made ahead of the query."""
    PACK = "pack"
    """One residue to bytes."""
    UNPACK = "unpack"
    """One residue from bytes, checked."""
    GEMM = "gemm"
    """One multiply-accumulate of a float64 matrix product, on one thread."""
    REDUCE = "reduce"
    """One residue split into limbs, or one recombined from them: the mean of the two."""


SCALAR = frozenset({Operation.PACK, Operation.UNPACK, Operation.GEMM, Operation.REDUCE})
"""Operations that are counted by the element; they belong to no ring."""


class Step(NamedTuple):
    """An operation where it happens: N and data primes left; both 1 for what is counted by the element."""

    operation: Operation
    degree: int = 1
    primes: int = 1


_LAWS: dict[Operation, laws.Law] = {
    Operation.EXPAND: laws.PASS,
    Operation.LOAD: laws.PASS,
    Operation.MULTIPLY_PLAIN: laws.PASS,
    Operation.ADD: laws.PASS,
    Operation.MULTIPLY: laws.PASS,
    Operation.SQUARE: laws.PASS,
    Operation.ROTATE: laws.KEY_SWITCH,
    Operation.RELINEARISE: laws.KEY_SWITCH,
    Operation.RESCALE: laws.TRANSFORMS,
    Operation.FINISH: laws.TRANSFORMS,
    Operation.ENCRYPT: laws.ENCRYPTION,
    Operation.BLIND: laws.BLINDING,
    Operation.PACK: laws.ELEMENT,
    Operation.UNPACK: laws.ELEMENT,
    Operation.GEMM: laws.ELEMENT,
    Operation.REDUCE: laws.ELEMENT,
}


@dataclass(frozen=True)
class UnitCosts:
    """Seconds for each operation, measured at some steps; the law gives all others, and smooths the measured ones."""

    measured: Mapping[Step, float]

    def __post_init__(self) -> None:
        missing = sorted(set(Operation) - {step.operation for step in self.measured})
        _require(not missing, f"no figure for {', '.join(missing)}")
        for step, seconds in self.measured.items():
            _check_step(step)
            _require(
                LEAST_SECONDS <= seconds < MOST_SECONDS,
                f"{step.operation}: expected {LEAST_SECONDS:g} to {MOST_SECONDS:g} seconds, got {seconds:g}",
            )

    def __hash__(self) -> int:
        return hash(frozenset(self.measured.items()))

    @cached_property
    def _weights(self) -> dict[Operation, list[float]]:
        points: dict[Operation, list[tuple[int, int, float]]] = {operation: [] for operation in Operation}
        for (operation, degree, primes), seconds in self.measured.items():
            points[operation].append((degree, primes, seconds))
        return {operation: laws.fit(_LAWS[operation], found) for operation, found in points.items()}

    def seconds(self, operation: Operation, degree: int = 1, primes: int = 1) -> float:
        """Seconds of one operation at ring degree N with that many data primes left, by the law."""
        return laws.value(_LAWS[operation], self._weights[operation], degree, primes)

    @property
    def law_error(self) -> float:
        """The largest factor (>= 1) between a measurement and the law, in either direction."""
        ratios = (self.seconds(*step) / seconds for step, seconds in self.measured.items())
        return max(max(ratio, 1 / ratio) for ratio in ratios)

    def to_json(self) -> str:
        """The measurements, as a server publishes them: {"version", "seconds": {operation: [[N, primes, seconds], ...]}}."""
        seconds: dict[str, list[list[float]]] = {}
        for step, value in sorted(self.measured.items()):
            seconds.setdefault(step.operation.value, []).append([step.degree, step.primes, value])
        return json.dumps({"version": _VERSION, "seconds": seconds})

    @classmethod
    def from_json(cls, text: str) -> UnitCosts:
        """The inverse of `to_json`, for foreign text: raises PlanRefused unless every figure is one that could be."""
        _require(
            len(text) <= MAX_JSON_CHARACTERS, f"expected at most {MAX_JSON_CHARACTERS} characters, got {len(text)}"
        )
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise PlanRefused("costs: expected JSON; update the side that sent them") from None
        _require(isinstance(value, dict) and value.get("version") == _VERSION, f"expected version {_VERSION}")
        tables = value.get("seconds")
        _require(isinstance(tables, dict), "expected a table of seconds")
        measured: dict[Step, float] = {}
        for name, rows in tables.items():
            _require(name in list(Operation), "holds an operation that this version does not know")
            _require(isinstance(rows, list), f"{name}: expected rows of N, primes, seconds")
            for row in rows:
                step, seconds = _row(Operation(name), row)
                _require(step not in measured, f"{name}: N = {step.degree}, {step.primes} primes is there twice")
                measured[step] = seconds
        return cls(measured)


def _row(operation: Operation, row: Any) -> tuple[Step, float]:
    whole = isinstance(row, list) and len(row) == 3 and type(row[0]) is int and type(row[1]) is int
    _require(whole and type(row[2]) in (int, float), f"{operation}: expected rows of N, primes, seconds")
    step = Step(operation, row[0], row[1])
    _check_step(step)
    # An integer can be too large for a float; cut down, it is still refused.
    return step, float(min(row[2], 2 * MOST_SECONDS))


def _check_step(step: Step) -> None:
    """Raise PlanRefused unless a ring operation names a ring, and no other does."""
    if step.operation in SCALAR:
        _require(step[1:] == (1, 1), f"{step.operation}: counted by the element, belongs to no ring")
        return
    _require(step.degree in MAX_MODULUS_BITS, f"{step.operation}: expected N among {sorted(MAX_MODULUS_BITS)}")
    _require(1 <= step.primes <= _MAX_PRIMES, f"{step.operation}: expected 1 to {_MAX_PRIMES} primes")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise PlanRefused(f"costs: {problem}")


@dataclass(frozen=True)
class Work:
    """How often each step is done: immutable, added with +, repeated with *. Build it with `Work.of`."""

    counts: tuple[tuple[Step, float], ...] = ()

    @classmethod
    def of(cls, operation: Operation, count: float = 1, *, degree: int = 1, primes: int = 1) -> Work:
        """`count` times one operation: N and data primes left for those of a ring, neither for the others.

        Counts need not be whole (a rescale of three parts is 1.5), but not negative.
        """
        step = Step(operation, degree, primes)
        _check_step(step)
        return cls._merged({step: count})

    @classmethod
    def _merged(cls, counts: Mapping[Step, float]) -> Work:
        if not all(math.isfinite(count) and count >= 0 for count in counts.values()):
            raise InternalFault("work: expected finite counts of at least 0")
        return cls(tuple(sorted((step, count) for step, count in counts.items() if count)))

    def __add__(self, other: Work) -> Work:
        counts = dict(self.counts)
        for step, count in other.counts:
            counts[step] = counts.get(step, 0) + count
        return self._merged(counts)

    def __mul__(self, times: float) -> Work:
        return self._merged({step: count * times for step, count in self.counts})

    __rmul__ = __mul__

    def count(self, operation: Operation) -> float:
        """How often an operation is done, at all levels together."""
        return sum(count for step, count in self.counts if step.operation is operation)

    def total(self, costs: UnitCosts) -> float:
        """Seconds on one thread."""
        return sum(count * costs.seconds(*step) for step, count in self.counts)


def dropping(degree: int, start: int, stop: int, parts: float = 1.0) -> Work:
    """Rescaling a ciphertext from `start` primes to `stop`; parts: 1.5 for one of three parts."""
    steps = (Work.of(Operation.RESCALE, parts, degree=degree, primes=left) for left in range(stop + 1, start + 1))
    return sum(steps, Work())
