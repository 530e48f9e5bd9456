"""How noisy the answers of a slot program are, at the worst input of the contract.

Noise of a ciphertext is a polynomial with independent coefficients of variance v; its slots are independent complex
numbers of variance N v, a real part has half of it. Sources, each divided by the scale where it enters:

    encryption    10.5 and 1/12 for rounding the input; seen through the weights, by several units each
    key switching sum over digits N q_i²/12 · 10.5 / p², and the rounding below
    dropping      N/18 + 1 (two parts), 2N²/27 more for the third, seen through the square of the ternary secret, whose
                  coefficients have the variance 2N (2/3)²: each product of two occurs twice

Every copy of a unit then holds the sum over a window of w copies (the folds still to come), and the last layer averages
the copies: an error keeps w²/copies of its variance. What differs between the copies also reaches the answers of other
rows of the same product, whose positions it no longer cancels: with g_k the slopes of row k, the variance of any answer is

    N v/2 · w²/copies · (|g_k|² + x(w) · sum of the others' |g_j|²)      x(w) = (copies - w) / (w (copies - 1))

Adding the conjugate makes noise real: four times the variance, and half of x. Layers before the last are not averaged:
an upper bound, since what follows them differs from copy to copy.

SEAL's digits lie in [0, q_i) and not around zero. Their mean, q_i/2 in every coefficient, has the slots q_i/(1 - zeta):
nearly all of it meets the slots 0 and 1, where zeta is closest to 1. It is 170 times the rest there for N = 8192, so the
units with the least influence are put into those places (`quiet_first`), and the noise is kept apart ("peak").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.embedding import roots
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import NOISE, rounding_noise
from secure_infer.ckks.slots.influence import Influence, Reach
from secure_infer.ckks.slots.program import Layer, Program

Floats = NDArray[np.float64]


def switching_variance(parameters: Parameters, level: int) -> float:
    """Of a coefficient after one key switch at that level, peaks aside."""
    return parameters.degree * _digits(parameters, level) * NOISE**2 / 12 + rounding_noise(parameters.degree) ** 2


def peak_variance(parameters: Parameters, level: int) -> float:
    """What the digits' mean adds, in units of `peaks`, divided by N: of a slot, as N times the variance above is."""
    return _digits(parameters, level) * NOISE**2


def spread_variance(parameters: Parameters, level: int) -> float:
    """Of a coefficient after one key switch, peaks included; of slots it is the average."""
    return switching_variance(parameters, level) + parameters.degree / 4 * peak_variance(parameters, level)


def _digits(parameters: Parameters, level: int) -> float:
    special = parameters.primes[-1]
    return sum((prime / special) ** 2 for prime in parameters.data_primes[:level])


def third_part_variance(degree: int) -> float:
    """Of a coefficient after a ciphertext of three parts was rounded."""
    return degree**2 * 2 / 27 + rounding_noise(degree) ** 2


@lru_cache(maxsize=64)
def peaks(degree: int, period: int) -> Floats:
    """Sum of 1/|1 - zeta|² over the slots of each place (period,), divided by their number."""
    inverse = 1.0 / np.abs(1.0 - roots(degree, 1)) ** 2
    return np.asarray(inverse.reshape(-1, period).mean(axis=0))


def evaluation_noise(influence: Influence, program: Program) -> float:
    """Standard deviation of a logit's evaluation noise at the worst input, blinds and rounded answers aside."""
    parameters, unit = program.plan.parameters, program.plan.unit
    total = (spread_variance(parameters, 1) + third_part_variance(parameters.degree)) / unit**2
    for index, layer in enumerate(program.layers):
        step = _Step(influence, program, index)
        total += step.input_errors() + step.argument_errors() + step.peak_errors()
        if layer.degree > 2:
            total += step.square_errors()
    return math.sqrt(total)


@dataclass(frozen=True)
class _Step:
    """What one hidden layer adds to the variance of an answer."""

    influence: Influence
    program: Program
    index: int

    @property
    def layer(self) -> Layer:
        return self.program.layers[self.index]

    @property
    def parameters(self) -> Parameters:
        return self.program.plan.parameters

    @property
    def last(self) -> bool:
        return self.index + 1 == len(self.program.layers)

    @property
    def copies(self) -> int:
        return self.program.plan.slots // self.layer.period

    def variance(self, reach: Reach, window: int, *, real: bool) -> float:
        """Of an answer, for errors of standard deviation one in every copy, of which windows are summed."""
        rows = self.program.plan.answers_per_product
        if not self.last:
            answered = self.program.plan.slots // self.program.layers[-1].period
            return window * reach.own**2 * max(1.0, (1 + rows) / answered)
        copies = self.copies
        mixed = (copies - window) / (window * max(1, copies - 1))
        if real:
            mixed /= 2
        else:
            mixed = 1.0  # what is imaginary in one row's answer is real in that of the row N/2 further
        return window**2 / copies * (reach.own**2 + mixed * reach.others**2)

    def reach(self, kind: str, errors: Callable[[], Floats]) -> Reach:
        """Of errors of the standard deviations (units,) that `errors` makes, in the arguments."""
        return self.influence.arguments(self.index, kind, errors, self.program.plan.answers_per_product)

    def still_peaks(self) -> Floats:
        degree, layer = self.parameters.degree, self.layer
        return np.asarray(np.sqrt(peaks(degree, layer.period)[: layer.units]))

    def moved_peaks(self) -> Floats:
        """Of all giant steps: the last one's stay, those before it are moved on by `babies` slots each."""
        degree, layer = self.parameters.degree, self.layer
        moved = [np.roll(peaks(degree, layer.period), -layer.babies * giant) for giant in range(layer.giants - 1)]
        return np.asarray(np.sqrt(np.sum(moved, axis=0)[: layer.units]))

    def input_errors(self) -> float:
        """Errors of the layer's input and of its baby steps, each of which adds a key switch to the one before."""
        layer, degree = self.layer, self.parameters.degree
        variance = (layer.babies - 1) / 2 * spread_variance(self.parameters, layer.level_in)
        if self.index == 0:
            variance += NOISE**2 + 1 / 12
        else:
            level = self.program.layers[self.index - 1].level_out
            variance += spread_variance(self.parameters, level) + third_part_variance(degree)
        reach = self.influence.inputs(self.index, layer, self.program.plan.answers_per_product)
        # Each slot of a window sees other slots of the input.
        seen = self.variance(reach, layer.parts, real=self.index == 0) / layer.parts
        return degree * variance * seen / layer.scale_in**2

    def argument_errors(self) -> float:
        """Key switches of giant steps, folds and the conjugate, and what is dropped."""
        layer, degree = self.layer, self.parameters.degree
        reach = self.reach("one", lambda: np.ones(layer.units))
        top, low = (switching_variance(self.parameters, level) for level in (layer.level_in, layer.level))
        raised, real = (layer.scale_in * layer.weight_scale) ** 2, self.index == 0
        # Half of a complex variance is real; with its conjugate added, twice it is.
        share = 2.0 if real else 0.5
        windows = [layer.parts >> fold for fold in range(len(layer.folds) + 1)]
        seen = [share * self.variance(reach, window, real=real) for window in windows]
        total = ((layer.giants - 1) * seen[0] + sum(seen[1 : layer.early + 1])) * top / raised
        total += sum(seen[layer.early + 1 :]) * low / layer.scale**2
        if real:
            total += 0.5 * self.variance(reach, 1, real=False) * low / layer.scale**2
        if layer.level < layer.level_in:
            total += seen[layer.early] * rounding_noise(degree) ** 2 / layer.scale**2
        return degree * total

    def peak_errors(self) -> float:
        """The peaks of the same key switches. Giant steps move those of earlier ones on; folds keep them in place."""
        layer, degree = self.layer, self.parameters.degree
        top, low = (peak_variance(self.parameters, level) for level in (layer.level_in, layer.level))
        raised, real = (layer.scale_in * layer.weight_scale) ** 2, self.index == 0
        share = (2.0 if real else 0.5) * (1 if self.last else self.copies)
        still = self.reach(f"peaks at {degree}", self.still_peaks)
        windows = [layer.parts >> fold for fold in range(len(layer.folds) + 1)]
        seen = [share * self.variance(still, window, real=real) for window in windows]
        total = sum(seen[1 : layer.early + 1]) * top / raised + sum(seen[layer.early + 1 :]) * low / layer.scale**2
        if real:
            total += share / 4 * self.variance(still, 1, real=False) * low / layer.scale**2
        if layer.giants > 1:
            reach = self.reach(f"peaks at {degree}, {layer.giants} steps of {layer.babies}", self.moved_peaks)
            total += share * self.variance(reach, layer.parts, real=real) * top / raised
        return degree * total

    def square_errors(self) -> float:
        """Relinearising and rounding t² between the two products."""
        layer, degree = self.layer, self.parameters.degree
        source = spread_variance(self.parameters, layer.level_square) + third_part_variance(degree)
        reach = self.influence.squares(self.index, self.program.plan.answers_per_product)
        return degree / 2 * source * self.variance(reach, 1, real=False) / layer.scale_square**2
