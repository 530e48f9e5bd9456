"""What fixed point costs: a bound on the error of every logit, and the probability that truncation spoils a record.

Weights and coefficients are rounded to multiples of 2^-f once; features and every truncation are rounded up or down at random
(a standard deviation of half a unit at most, without bias). What is rounded once, when the program is compiled, is bounded at
its worst input; what is random, at six standard deviations. Errors reach the logits through the steepest slopes that inputs
allow (`heads.network.Bounds.sensitivity`), those of one stage as a vector of bounded length into the next.

Truncation fails for a value v (an integer, before bits are dropped) with probability |v| / 2^64: it is then off by
2^(64 - bits), far out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from secure_infer.heads.network import Bounds, Hidden, Network
from secure_infer.mpc.ring import Floats
from secure_infer.mpc.stages import Stage

SIGMAS = 6.0
FINE = 40
"""So many bits that what they round does not count."""
_HALF = 0.5
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
    bits = fractions.inputs
    errors: Floats = np.zeros(1)
    for index, part in enumerate(parts):
        final = index + 1 == len(parts) and not part.rectified
        if part.network is None:
            errors = np.full(part.contract.features, 2.0**-fractions.inputs if incoming is None else incoming)
        else:
            last = fractions.last if final else fractions.weights
            cut = label_fraction if final else fractions.state
            bits = fractions.state if part.network.hidden else bits
            # Biases are rounded at their product's bits: before a truncation, at those of the state or more.
            bias = 2.0 ** -(bits + last) if final else 2.0 ** -(fractions.state + 1)
            errors = _stage_error(part, part.network, fractions, last, incoming, cut) + bias
            bits = fractions.state
        incoming = float(np.linalg.norm(errors))
    return errors


def _stage_error(
    part: Stage, network: Network, fractions: Fractions, last: int, incoming: float | None, cut: int | None
) -> Floats:
    bounds = part.bounds
    chance = _Squares(network.outputs)
    worst = np.zeros(network.outputs)
    inputs = _once(part, "inputs", lambda: _through(network, bounds))
    if incoming is None:
        chance.add(2.0**-fractions.inputs * _HALF * inputs)
    else:
        worst = worst + incoming * inputs
    bits = fractions.weights
    for index in range(len(network.hidden)):
        if bits < FINE:
            worst = worst + _once(part, f"weights {index} {bits}", _weight_rounding(network, bounds, index, bits))
        chance.add(2.0**-fractions.state * _once(part, f"state {index}", _truncations(network, bounds, index)))
    worst = worst + _once(part, f"last {last}", lambda: _output_rounding(network, bounds, last))
    errors = worst + SIGMAS * chance.root()
    return errors if cut is None else errors + 2.0**-cut


def _once(part: Stage, name: str, compute: Callable[[], Floats]) -> Floats:
    """What was computed for a stage before."""
    if name not in part.found:
        part.found[name] = compute()
    return part.found[name]


def _truncations(network: Network, bounds: Bounds, index: int) -> Callable[[], Floats]:
    """Errors (K,) of the outputs from truncating a layer's sums and powers, in units of the state."""

    def compute() -> Floats:
        sums = bounds.sensitivity(index, np.full(network.hidden[index].units, _HALF))
        return np.asarray(np.hypot(sums, _power_errors(network, bounds, index)))

    return compute


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


def _through(network: Network, bounds: Bounds) -> Floats:
    """Errors (K,) of the outputs for inputs with errors of unit variance, or of unit length."""
    if not network.hidden:
        return np.asarray(np.linalg.norm(network.output.weight, axis=1))
    weight = network.hidden[0].weight
    return bounds.sensitivity(0, weight @ weight.T)


def _power_errors(network: Network, bounds: Bounds, index: int) -> Floats:
    """Errors (K,) of the outputs from truncating a layer's powers, each weighted by its coefficient, in units."""
    layer = network.hidden[index]
    largest = bounds.units[index]
    # t² is truncated once; t³ = t t² and t⁴ = t² t² carry its error on and are truncated again.
    gains = {1: 0.0, 2: 1.0, 3: 1.0 + largest, 4: 1.0 + 2 * largest**2}
    per_unit = sum(np.abs(layer.coefficients[:, e]) * gains[e] for e in used_exponents(layer))
    errors = np.broadcast_to(np.asarray(per_unit, dtype=np.float64) * _HALF, (layer.units,))
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


def _weight_rounding(network: Network, bounds: Bounds, index: int, fraction: int) -> Callable[[], Floats]:
    """Errors (K,) from rounding the weights of a hidden layer, with the coefficients of the one before that they absorb."""

    def compute() -> Floats:
        weight = network.hidden[index].weight
        if not index:
            change = _rounded(weight, fraction) - weight
            return bounds.sensitivity(0, bounds.input_norm(0) ** 2 * (change @ change.T))
        before = network.hidden[index - 1]
        terms = weight[:, :, None] * before.coefficients[None]
        powers = bounds.units[index - 1][:, None] ** np.arange(before.degree + 1)
        changes = np.abs(_rounded(terms, fraction) - terms)
        return bounds.sensitivity(index, (changes * powers[None]).sum(axis=(1, 2)))

    return compute
