"""Fraction bits for a head: those that keep the error wanted with the rarest failures of truncation, and room for all.

The error is, about, A 2^-inputs + B 2^-weights + C 2^-state, and failures are sums of |v| 2^(bits - 64), so that all
combinations can be looked through; the one chosen is then computed exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from secure_infer.mpc.comparison import VALUE_BITS
from secure_infer.mpc.precision import FINE, Fractions, head_error, used_exponents
from secure_infer.mpc.ring import LIMB
from secure_infer.mpc.stages import Stage

ROOM = 62
"""Values before truncation stay below 2^62."""
MAX_FAILURE = 2.0**-10
"""Truncation spoils a record at most so often; beyond, the head's numbers are too large for the ring."""
_CHOICES = range(4, 29)
_LEAST_LABEL = 4


@dataclass(frozen=True)
class Fit:
    """Chosen fraction bits, with the bound on the logit error and the probability that a record is spoilt."""

    fractions: Fractions
    label_fraction: int
    error: float
    failure: float
    largest_output: float


@dataclass(frozen=True)
class _Truncated:
    """Values that are truncated, as reals: the largest, and the sum of the largest of each. product: which bits they are
    at then: "first" (inputs + weights), "later" (state + weights), "power" (twice the state) or "label" (state + last)."""

    product: str
    largest: float
    total: float


class Ranges:
    """The largest values of a head's stages, where they matter for fixed point."""

    def __init__(self, parts: Sequence[Stage], *, label: bool) -> None:
        self.parts, self.label = parts, label
        self.truncated: list[_Truncated] = []
        self.compared = self.compared_input = 0.0
        self.input = parts[0].contract.bound
        product, largest = "first", 0.0
        self.last_product = "first"
        for part in parts:
            largest = part.contract.bound
            if part.network is not None:
                for z, layer in zip(part.bounds.units, part.network.hidden, strict=True):
                    self.truncated.append(_Truncated(product, float(z.max()), float(z.sum())))
                    product = "later"
                    powers = [z**e for e in used_exponents(layer) if e > 1]
                    self.truncated += [_Truncated("power", float(p.max()), float(p.sum())) for p in powers]
                outputs = part.bounds.outputs
                largest = float(outputs.max())
                if part.rectified:
                    self.truncated.append(_Truncated(product, largest, float(outputs.sum())))
                elif label:
                    self.truncated.append(_Truncated(f"{product} last", largest, float(outputs.sum())))
                self.last_product = product
                product = "later"
            if part.rectified and product == "first":  # straight from the input, at its bits
                self.compared_input = largest
            elif part.rectified:
                self.compared = max(self.compared, largest)
        self.largest_output = largest

    @property
    def label_fraction(self) -> int:
        """Fraction bits at which differences of two outputs fit a comparison."""
        return VALUE_BITS - 1 - math.ceil(math.log2(2 * self.largest_output + 1))

    def bits(self, product: str, fractions: Fractions) -> int:
        """Fraction bits of such a product."""
        if product == "power":
            return 2 * fractions.state
        left = fractions.inputs if product.startswith("first") else fractions.state
        return left + (fractions.last if product.endswith("last") else fractions.weights)

    def refusal(self, fractions: Fractions) -> str:
        """Why there is no room with these bits; empty when there is."""
        largest = max(
            self.input * 2.0**fractions.inputs,
            1.01 * self.largest_output * 2.0 ** self.bits(f"{self.last_product} last", fractions),  # and its error
            *(t.largest * 2.0 ** self.bits(t.product, fractions) for t in self.truncated),
            0.0,
        )
        if largest >= 2.0**ROOM:
            return f"values reach 2^{math.log2(largest):.0f} before they are truncated, beyond 2^{ROOM}"
        if any(t.product == "first" for t in self.truncated) and fractions.inputs + fractions.weights < fractions.state:
            return "the first sums have fewer bits than they are truncated to"
        # A hair of room for the error of what is compared.
        compared = max(self.compared * 2.0**fractions.state, self.compared_input * 2.0**fractions.inputs)
        if 1.01 * compared >= 2.0**VALUE_BITS:
            return f"a ReLU takes values beyond 2^{VALUE_BITS}"
        return ""

    def failure(self, fractions: Fractions) -> float:
        return sum(t.total * 2.0 ** (self.bits(t.product, fractions) - 64) for t in self.truncated)


def fit(parts: Sequence[Stage], wanted: float, *, label: bool) -> tuple[Fit | None, str]:
    """The fit, or None and why there is none."""
    ranges = Ranges(parts, label=label)
    if label and ranges.label_fraction < _LEAST_LABEL:
        return None, "logits are too large to be compared"
    usual, reason = _last_bits(parts), ""
    for last in dict.fromkeys(max(0, usual + more) for more in (0, 4, -4, 8, -8, 12, -12)):
        found, why = _fit_with(parts, ranges, wanted, last)
        if found is not None:
            return found, ""
        reason = reason or why
    return None, reason


def _fit_with(parts: Sequence[Stage], ranges: Ranges, wanted: float, last: int) -> tuple[Fit | None, str]:
    """As `fit`, with so many bits for the last weights."""
    cut = ranges.label_fraction if ranges.label else None
    fine = Fractions(FINE, FINE, FINE, last)

    def error(fractions: Fractions) -> float:
        return float(head_error(parts, fractions, cut).max())

    fixed = error(fine)
    if fixed >= wanted:
        return None, f"{last} fraction bits of the last weights are too few"
    slopes = [max(0.0, error(replace(fine, **{name: 12})) - fixed) * 2.0**12 for name in ("inputs", "weights", "state")]
    goal, reason = wanted, f"{_CHOICES[-1]} fraction bits are too few"
    for _ in range(4):
        best: tuple[float, float] | None = None
        chosen: Fractions | None = None
        for inputs, weights, state in product(_CHOICES, repeat=3):
            estimate = fixed + slopes[0] * 2.0**-inputs + slopes[1] * 2.0**-weights + slopes[2] * 2.0**-state
            if estimate > goal:
                continue
            candidate = Fractions(inputs, weights, state, last)
            refusal = ranges.refusal(candidate)
            if refusal:
                reason = refusal
                continue
            # Failures within a factor of two count as equal: the smaller error is then worth more.
            failure = ranges.failure(candidate)
            rank = (math.ceil(math.log2(failure)) if failure else -math.inf, estimate)
            if best is None or rank < best:
                best, chosen = rank, candidate
        if chosen is None:
            return None, reason
        exact, failure = error(chosen), ranges.failure(chosen)
        if failure > MAX_FAILURE:
            return None, f"truncation would spoil one record in {1 / failure:.0f}"
        if exact <= wanted:
            return Fit(chosen, cut or 0, exact, failure, ranges.largest_output), ""
        goal *= 0.9 * wanted / exact
    return None, "the error bound does not come down"


def _last_bits(parts: Sequence[Stage]) -> int:
    """Fraction bits of the last weights: what one limb of a product holds."""
    network = parts[-1].network
    if network is None:
        return 0
    largest = float(np.abs(network.output.weight).max())
    if network.hidden:
        largest *= max(1e-30, float(np.abs(network.hidden[-1].coefficients).max()))
    room = LIMB - 2 - math.ceil(math.log2(max(largest, 2.0**-8)))
    return int(np.clip(room, 8, 26))
