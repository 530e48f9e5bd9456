"""What fixed point costs: a bound on the error of every logit, and the probability that truncation spoils a record.

Features, weights and coefficients are rounded to multiples of 2^-f once, and every truncation rounds up or down at random (a
standard deviation of half a unit at most, without bias). What is rounded once, when the program is compiled, is bounded at
its worst input; what is random, at six standard deviations. Errors reach the logits through the steepest slopes that inputs
allow (`heads.network.Bounds.sensitivity`), those of one stage as a vector of bounded length into the next.

Truncation fails for a value v (an integer, before bits are dropped) with probability |v| / 2^64: it is then off by
2^(64 - bits), far out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.heads.network import Bounds, Hidden, Network
from secure_infer.mpc.ring import Floats
from secure_infer.mpc.stages import Stage

SIGMAS = 6.0
_ROUNDING = 1 / np.sqrt(12)
"""Standard deviation of rounding to the nearest, in units."""
_TRUNCATION = 0.5
"""Largest standard deviation of rounding up or down at random, in units."""


@dataclass(frozen=True)
class Fractions:
    """Fraction bits of inputs, of weights, of what is truncated (the state), and of the last affine step's weights.

    The last step is not truncated, so that its bits cost nothing but room.
    """

    inputs: int
    weights: int
    state: int
    last: int


def head_error(parts: Sequence[Stage], fractions: Fractions, label_fraction: int | None = None) -> Floats:
    """Bound on the error of each output (K,). label_fraction: bits that the last outputs are truncated to, if they are."""
    incoming: float | None = None
    errors: Floats = np.zeros(1)
    for index, part in enumerate(parts):
        final = index + 1 == len(parts) and not part.rectified
        if part.network is None:
            errors = np.full(part.contract.features, 2.0**-fractions.inputs if incoming is None else incoming)
        else:
            last = fractions.last if final else fractions.weights
            cut = label_fraction if final else fractions.state
            errors = _stage_error(part.network, part.bounds, fractions, last, incoming, cut)
        incoming = float(np.linalg.norm(errors))
    return errors


def _stage_error(
    network: Network, bounds: Bounds, fractions: Fractions, last: int, incoming: float | None, cut: int | None
) -> Floats:
    unit = 2.0**-fractions.state
    chance = _Squares(network.outputs)
    worst = np.zeros(network.outputs)
    if incoming is None:
        chance.add(_through(network, bounds, (2.0**-fractions.inputs * _ROUNDING) ** 2))
    else:
        worst = worst + _through(network, bounds, incoming**2)
    for index, layer in enumerate(network.hidden):
        bits = fractions.weights
        if index:
            worst = worst + _absorbed_rounding(network, bounds, index - 1, bits)
        else:
            change = _rounded(layer.weight, bits) - layer.weight
            worst = worst + bounds.sensitivity(0, bounds.input_norm(0) ** 2 * (change @ change.T))
        chance.add(bounds.sensitivity(index, np.full(layer.units, unit * _TRUNCATION)))
        chance.add(_power_errors(network, bounds, index, unit))
    worst = worst + _output_rounding(network, bounds, last) + 2.0 ** -(fractions.state + last)
    errors = worst + SIGMAS * chance.root()
    return errors if cut is None else errors + 2.0**-cut


def used_exponents(layer: Hidden) -> tuple[int, ...]:
    """Exponents with a coefficient other than zero for some unit."""
    return tuple(e for e in range(1, layer.degree + 1) if np.abs(layer.coefficients[:, e]).max() > 0)


def _rounded(values: Floats, fraction: int) -> Floats:
    return np.asarray(np.ldexp(np.rint(np.ldexp(values, fraction)), -fraction))


class _Squares:
    """Independent errors, added up by their squares."""

    def __init__(self, count: int) -> None:
        self._sum = np.zeros(count)

    def add(self, errors: Floats) -> None:
        self._sum = self._sum + errors**2

    def root(self) -> Floats:
        return np.asarray(np.sqrt(self._sum))


def _through(network: Network, bounds: Bounds, spread: float) -> Floats:
    """Errors (K,) of the outputs for inputs with covariance, or squared length, `spread`."""
    if not network.hidden:
        return np.asarray(np.sqrt(spread) * np.linalg.norm(network.output.weight, axis=1))
    weight = network.hidden[0].weight
    return bounds.sensitivity(0, spread * (weight @ weight.T))


def _power_errors(network: Network, bounds: Bounds, index: int, unit: float) -> Floats:
    """Errors (K,) of the outputs from truncating a layer's powers, each weighted by its coefficient."""
    layer = network.hidden[index]
    largest = bounds.units[index]
    # t² is truncated once; t³ = t t² and t⁴ = t² t² carry its error on and are truncated again.
    gains = {1: 0.0, 2: 1.0, 3: 1.0 + largest, 4: 1.0 + 2 * largest**2}
    per_unit = sum(np.abs(layer.coefficients[:, e]) * gains[e] for e in used_exponents(layer))
    errors = np.broadcast_to(np.asarray(per_unit, dtype=np.float64) * unit * _TRUNCATION, (layer.units,))
    if index + 1 < len(network.hidden):
        following = network.hidden[index + 1].weight
        return bounds.sensitivity(index + 1, (following * errors**2) @ following.T)
    return np.asarray(np.sqrt(((network.output.weight * errors) ** 2).sum(axis=1)))


def _output_rounding(network: Network, bounds: Bounds, fraction: int) -> Floats:
    """Errors (K,) from rounding the output's weights, with the coefficients that they absorb."""
    if not network.hidden:
        return bounds.contract.functional_bound(_rounded(network.output.weight, fraction) - network.output.weight)
    terms = network.output.weight[:, :, None] * network.hidden[-1].coefficients[None]
    return bounds.change(_rounded(terms, fraction) - terms)


def _absorbed_rounding(network: Network, bounds: Bounds, index: int, fraction: int) -> Floats:
    """Errors (K,) from rounding the weights of hidden layer index + 1, with the coefficients that they absorb."""
    layer = network.hidden[index]
    terms = network.hidden[index + 1].weight[:, :, None] * layer.coefficients[None]
    powers = bounds.units[index][:, None] ** np.arange(layer.degree + 1)
    change = np.abs(_rounded(terms, fraction) - terms)
    return bounds.sensitivity(index + 1, (change * powers[None]).sum(axis=(1, 2)))
