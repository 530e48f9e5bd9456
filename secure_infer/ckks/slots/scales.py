"""Scales and primes of slot programs: how many bits every matrix and activation needs, and the chain that follows.

weight scales    large enough that what rounding makes of the weights costs `share` of the allowed error each, at
                 the worst input: an estimate from norms; what it really costs is checked on the compiled network
working scale    2^bits for every activation's argument
chain            from the first prime up: what the answers and the last activation need; for each layer from the
                 last to the first, what its square, its matrix and the activation before it are divided by; on top
                 what is dropped after the first matrix: all the room it gives is the input's, and so smudging's
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from secure_infer.ckks.parameters import MAX_PRIME_BITS, MIN_PRIME_BITS, Parameters
from secure_infer.ckks.plan import WINDOW
from secure_infer.ckks.slots.influence import Influence
from secure_infer.ckks.slots.layouts import Layout, period_of
from secure_infer.ckks.slots.program import Layer

_FIRST_BITS = 56
_LARGEST_INPUT = 60  # bits of the packed input's coefficients
_LEAST_BITS = 10
"""Of any scale: what zero weights become, since SEAL refuses to multiply by zero, stays without effect on the noise."""


@dataclass(frozen=True)
class Scales:
    """Of one network in one ring. error: what rounding one matrix or activation may add to a logit. answer_range: of
    the answers, in logits."""

    influence: Influence
    degree: int
    error: float
    answer_range: float

    @property
    def window(self) -> float:
        """q0/unit, a little above the least that is allowed."""
        return 1.0001 * WINDOW * self.answer_range

    @cached_property
    def weights(self) -> list[int]:
        """Bits of each matrix's scale: rounding moves an entry by about sqrt(N/6) last places, the spectral norm by that
        times the roots of its sides."""
        found = []
        for index, hidden in enumerate(self.influence.network.hidden):
            moved = math.sqrt(self.degree / 6) * sum(math.sqrt(side) for side in hidden.weight.shape)
            found.append(
                self._bits(self.influence.plain[index].max() * self.influence.bounds.input_norm(index) * moved)
            )
        return found

    @cached_property
    def coefficients(self) -> list[int]:
        """Bits of the scale of each layer's leading coefficients."""
        hidden, bounds = self.influence.network.hidden, self.influence.bounds
        found = []
        for index in range(len(hidden) - 1):
            moved = math.sqrt(self.degree / 24) * bounds.units[index] ** hidden[index].degree
            reach = np.linalg.norm(np.abs(hidden[index + 1].weight) @ moved)
            found.append(self._bits(self.influence.plain[index + 1].max() * reach))
        copies = self.degree // 2 // period_of(hidden[-1].units)
        return [*found, self._bits(self.influence.curved * math.sqrt(self.degree / 24 / copies))]

    def _bits(self, moved: float) -> int:
        return max(_LEAST_BITS, math.ceil(math.log2(max(1e-9, float(moved) / self.error))))

    def groups(self, working: int, top: int) -> list[list[int]]:
        """Bits of the primes, grouped by what drops them: the last layer's first, the input's last."""
        hidden = self.influence.network.hidden
        last = 2 * working + self.coefficients[-1] + math.log2(self.window / period_of(hidden[-1].units)) + 0.05
        found = [_split(math.ceil(last), least=2)]
        for index in range(len(hidden) - 1, -1, -1):
            if hidden[index].degree > 2:
                found.append(_split(working))
            if index:
                found.append(_split(self.weights[index]))
                found.append(_split(working + self.coefficients[index - 1]))
        return [*found, [top]] if top else found

    def chain(self, working: int, top: int) -> tuple[int, ...]:
        """Bits of all data primes."""
        return tuple(bits for group in self.groups(working, top) for bits in group)

    def layers(self, layout: Layout, parameters: Parameters, working: int, top: int) -> tuple[Layer, ...] | None:
        """Scales and levels of every layer, from the input down; None when the input's scale is below one or too large.

        Primes are a little below powers of two: what is multiplied in makes up for what is divided out.
        """
        descent = _Descent(parameters.data_primes, [len(group) for group in self.groups(working, top)])
        network, found, scale = self.influence.network, list[Layer](), 2.0**working
        scale_in = 1.0
        for index, hidden in enumerate(network.hidden):
            level_in, divisor = descent.level, descent.drop() if index or top else 1
            if index == 0:
                bits = math.floor(working + math.log2(divisor) - self.weights[0])
                scale_in = 2.0**bits
                if bits < 0 or scale_in * self.influence.contract.largest_norm >= 2.0**_LARGEST_INPUT:
                    return None
            level = descent.level
            made = Layer(
                units=hidden.units,
                degree=hidden.degree,
                level_in=level_in,
                scale_in=scale_in,
                weight_scale=scale * divisor / scale_in,
                level=level,
                scale=scale,
                scale_square=scale**2 / descent.drop() if hidden.degree > 2 else scale,
                level_square=descent.level,
                coefficient_scale=1.0,
                level_out=1,
                scale_out=1.0,
                **(_later(found[-1].period, hidden.units) if found else _first(layout, hidden.units)),
            )
            if index + 1 < len(network.hidden):
                scale_in = scale
                coefficient_scale = scale * descent.drop() / made.product_scale
                made = replace(made, coefficient_scale=coefficient_scale, level_out=descent.level, scale_out=scale_in)
            else:
                answer = math.prod(parameters.data_primes[: descent.level]) / self.window * made.period
                made = replace(made, coefficient_scale=answer / made.product_scale)
            found.append(made)
        return tuple(found)


class _Descent:
    """Goes down a chain of primes, a group of successive ones at a time. sizes: primes of each group, the first last."""

    def __init__(self, primes: Sequence[int], sizes: Sequence[int]) -> None:
        self._primes, self._sizes = primes, list(sizes)
        self.level = len(primes)

    def drop(self) -> int:
        """The product of the next group, which is divided out."""
        above, self.level = self.level, self.level - self._sizes.pop()
        return math.prod(self._primes[self.level : above])


def _first(layout: Layout, units: int) -> dict[str, int]:
    return {
        "period": period_of(units),
        "inputs": layout.inputs,
        "shifts": layout.shifts,
        "parts": layout.parts,
        "babies": layout.babies,
        "early": min(layout.early, layout.parts.bit_length() - 1),
    }


def _later(width: int, units: int) -> dict[str, int]:
    """The one layout of a matrix between hidden layers, its input in periods of `width` slots."""
    period = period_of(units)
    shifts = min(width, period)
    return {
        "period": period,
        "inputs": 1,
        "shifts": shifts,
        "parts": max(1, width // period),
        "babies": 1 << (shifts.bit_length() // 2),
        "early": 0,
    }


def _split(bits: int, least: int = 1) -> list[int]:
    """`bits` as primes of at most 60 bits, at least `least` of them: evenly, but for the first where there are several
    more. Answers are read modulo the first alone, so a small one would drown them in the last rounding."""
    count = max(least, -(-bits // MAX_PRIME_BITS))
    if count > 2 and bits < count * _FIRST_BITS:
        first = min(_FIRST_BITS, bits - (count - 1) * MIN_PRIME_BITS)
        return [first, *_evenly(bits - first, count - 1)]
    return _evenly(bits, count)


def _evenly(bits: int, count: int) -> list[int]:
    return [max(MIN_PRIME_BITS, bits // count + (i < bits % count)) for i in range(count)]
