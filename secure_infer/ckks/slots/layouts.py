"""The ways to deal out the first layer's columns over slots, ciphertexts and rotations. See `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from secure_infer.heads.network import Network

_INPUTS = (1, 2, 3, 4, 6, 8, 12)
_PROMISING = 3
_TOP = 1.7
"""About what a key switch costs before primes are dropped, in units of one after."""

_FEWEST_PARTS = 8
"""Layouts use at least one in so many of the parts that there could be: fewer parts are more rotations."""


@dataclass(frozen=True)
class Layout:
    """degree: N. inputs: ciphertexts of a query. parts, shifts: as in the plan. babies: rotations of each input. early:
    steps of summing parts that come before primes are dropped."""

    degree: int
    inputs: int
    parts: int
    shifts: int
    babies: int
    early: int = 0

    @property
    def rotations(self) -> int:
        """Before the parts are summed."""
        return self.inputs * (self.babies - 1) + self.shifts // self.babies - 1


def period_of(units: int) -> int:
    """The least power of two that holds `units`."""
    return 1 << (units - 1).bit_length()


def unfit(network: Network, degree: int) -> str:
    """Why `layouts` has none at that degree; empty when it has some."""
    slots, columns = degree // 2, -(-network.features // 2)
    units = max(network.widths[1:-1])
    if period_of(units) > slots:
        return f"N={degree}: a hidden layer of {units} units; expected at most {slots}"
    if columns > _INPUTS[-1] * slots:
        return f"N={degree}: {network.features} features; expected at most {2 * _INPUTS[-1] * slots}"
    return ""


def layouts(network: Network, degree: int) -> Iterator[Layout]:
    """Every sensible layout of a network's first layer at that degree, `early` aside; none when it does not fit.

    With 384 features and 256 units at N = 8192: 192 columns over 16 parts are 16 shifts of one ciphertext (babies 1 to
    8), 8 shifts of two, 4 of three; over 8 parts twice as many shifts; and so on.
    """
    slots, period = degree // 2, period_of(network.hidden[0].units)
    if unfit(network, degree):
        return
    columns = -(-network.features // 2)
    seen = set()
    for inputs in _INPUTS:
        most = min(slots // period, period_of(-(-columns // inputs)))
        for parts in (most >> step for step in range(_FEWEST_PARTS.bit_length()) if most >> step):
            shifts = period_of(-(-columns // (inputs * parts)))
            if shifts > period:
                continue
            needed = -(-columns // (parts * shifts))  # as few ciphertexts as these shifts and parts need
            babies = 1
            while babies <= max(1, shifts // 2):
                if (needed, parts, shifts, babies) not in seen:
                    seen.add((needed, parts, shifts, babies))
                    yield Layout(degree, needed, parts, shifts, babies)
                babies *= 2


def promising(network: Network, degree: int) -> list[Layout]:
    """The layouts worth pricing, `early` included: for each number of ciphertexts, those with the fewest key switches."""
    by_inputs: dict[int, list[Layout]] = {}
    for layout in layouts(network, degree):
        by_inputs.setdefault(layout.inputs, []).append(layout)
    found = []
    for some in by_inputs.values():
        fewest = sorted(some, key=lambda layout: _TOP * layout.rotations + layout.parts.bit_length())[:_PROMISING]
        found += [replace(layout, early=early) for layout in fewest for early in range(layout.parts.bit_length())]
    return found
