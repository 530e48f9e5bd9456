"""The server's side of a slot plan: which scale and level every step has. Compiled by the planner, executed by `evaluator`.

A level is the number of data primes left, S the scale of a value: an activation's argument t is in the slots as t · S.

    matrix       at `level_in`: sums of rotated inputs times diagonals, scale_in · weight_scale; then primes are dropped
    folds        sums over parts, and the conjugate; the slots hold t · scale, repeated over all copies. The first
                 `early` of them come before the drop: they cost more there, and what dropping rounds is summed less often
    activation   degree 2:   t (c2 t + c1)
                 degree 3:   t (c3 t² + c2 t + c1)
                 degree 4:   t² (c4 t² + c3 t + c2) + c1 t           t² relinearised at `level_square`
    between      drop to `level_out`, relinearise: the next matrix's input at scale_out
    at the end   the coefficients are those of `output_polynomials`; drop to one prime, relinearise there: the cheapest
                 place for both

Multiplying by the coefficients before the ciphertext product keeps one polynomial for every unit, a straight line
included, and costs two parts instead of three.
"""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.ckks.slots.plan import SlotPlan


@dataclass(frozen=True)
class Layer:
    """One hidden layer. units: of the head. shifts, parts, babies: of its diagonals. early: folds before the drop.
    coefficient_scale: of the leading activation coefficients; the others follow from it."""

    units: int
    degree: int
    period: int
    inputs: int
    shifts: int
    parts: int
    babies: int
    early: int
    level_in: int
    scale_in: float
    weight_scale: float
    level: int
    scale: float
    level_square: int
    scale_square: float
    coefficient_scale: float
    level_out: int
    scale_out: float

    @property
    def folds(self) -> list[int]:
        """Rotations, in slots, that sum the parts: the longest first."""
        return [self.period << step for step in reversed(range(self.parts.bit_length() - 1))]

    @property
    def giants(self) -> int:
        return self.shifts // self.babies

    @property
    def product_scale(self) -> float:
        """Scale of the activation before primes are dropped."""
        if self.degree == 2:
            return self.coefficient_scale * self.scale**2
        if self.degree == 3:
            return self.coefficient_scale * self.scale * self.scale_square
        return self.coefficient_scale * self.scale_square**2

    def scale_of(self, power: int) -> float:
        """Scale of the plaintext of the coefficients of t^power."""
        target = self.product_scale
        if self.degree == 2:
            return self.coefficient_scale if power == 2 else target / self.scale
        if self.degree == 3:
            inner = target / self.scale
            return {3: self.coefficient_scale, 2: inner / self.scale, 1: inner}[power]
        inner = target / self.scale_square
        return {4: self.coefficient_scale, 3: inner / self.scale, 2: inner, 1: target / self.scale}[power]


@dataclass(frozen=True)
class Program:
    """A plan and the layers that carry it out."""

    plan: SlotPlan
    layers: tuple[Layer, ...]
