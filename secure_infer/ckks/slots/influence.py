"""How errors inside a network reach its outputs, at the worst input: what noise and rounding are weighed with.

A slot's error is shared by all units that see it. 2 units with the weights (a, b) and (c, d), a period of 2, see the slots

    in 2 shifts of one part     both of them both: errors e0, e1 move t by a e0 + b e1 and c e0 + d e1, covariance ac + bd
    in 1 shift of two parts     their own: unit 0 slots 0 and 2, unit 1 slots 1 and 3; nothing is shared
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.embedding import Slots
from secure_infer.ckks.slots.layout import column_of, complex_columns
from secure_infer.ckks.slots.program import Layer
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Bounds, Hidden, Network

Floats = NDArray[np.float64]

_LOUDEST = 3
"""Outputs of which the worst input is sought: those that errors in single arguments move most."""


@dataclass(frozen=True)
class Reach:
    """own: largest standard deviation of an output. others: root of the sum of squares of those in the same product."""

    own: float
    others: float


def quiet_first(network: Network, contract: InputContract) -> Network:
    """The network with the units of each hidden layer in another order: those that move the outputs least come first."""
    hidden, output = list(network.hidden), network.output
    bounds = Bounds(network, contract)
    for index in range(len(hidden)):
        following = hidden[index + 1].weight if index + 1 < len(hidden) else output.weight
        powers = bounds.units[index][:, None] ** np.arange(hidden[index].degree)
        slope = (np.abs(hidden[index].coefficients[:, 1:]) * np.arange(1, hidden[index].degree + 1) * powers).sum(
            axis=1
        )
        order = np.argsort(np.abs(following).max(axis=0) * slope, kind="stable")
        hidden[index] = Hidden(hidden[index].weight[order], hidden[index].coefficients[order])
        if index + 1 < len(hidden):
            then = hidden[index + 1]
            hidden[index + 1] = Hidden(then.weight[:, order], then.coefficients)
        else:
            output = Linear(output.weight[:, order], output.bias)
    return Network(hidden, output)


def shared_columns(columns: Slots, inputs: int, shifts: int, parts: int, period: int) -> Floats:
    """Covariance (units, units) of Re(columns · e) for errors e of complex variance two, one in each slot of the input.

    columns: (units, columns of all ciphertexts).
    """
    units, per = len(columns), shifts * parts
    column = column_of(period * parts, period, parts, shifts).reshape(parts, period)
    total = np.zeros((units, units))
    for place in range(period):
        # The units that see these slots sit 0 to shifts - 1 slots before them.
        seeing = (place - np.arange(shifts)) % period
        seeing = seeing[seeing < units]
        seen = (column[:, place] + per * np.arange(inputs)[:, None]).ravel()
        weights = columns[np.ix_(seeing, seen)]
        total[np.ix_(seeing, seeing)] += (weights @ weights.conj().T).real
    return total


class Influence:
    """Of one network and its contract: computed once, used for every candidate."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        self.network, self.contract = network, contract
        self.bounds = Bounds(network, contract)
        self._found: dict[tuple[object, ...], Reach] = {}

    @cached_property
    def plain(self) -> list[Floats]:
        """For each hidden layer (K,): errors of standard deviation one in every argument, independent."""
        return [self.bounds.sensitivity(i, np.ones(layer.units)) for i, layer in enumerate(self.network.hidden)]

    @cached_property
    def curved(self) -> float:
        """How far outputs move when every coefficient of the last layer's leading power does by one, signs at random."""
        hidden = self.network.hidden[-1]
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (8, hidden.units))
        terms = np.zeros((len(signs), hidden.units, hidden.degree + 1))
        terms[:, :, hidden.degree] = signs
        return float(self.bounds.change(terms).max())

    @cached_property
    def largest(self) -> float:
        """R: the largest |logit| on any input that keeps the contract."""
        return float(self.bounds.outputs.max())

    def arguments(self, index: int, kind: str, errors: Callable[[], Floats], per: int) -> Reach:
        """Of errors in the arguments of hidden layer `index`, `per` outputs a product.

        errors: makes their standard deviations (units,), when they are not known yet; kind: names them.
        """
        key = (index, kind, per)
        if key not in self._found:
            self._found[key] = self._reach(index, errors(), per)
        return self._found[key]

    def inputs(self, index: int, layer: Layer, per: int) -> Reach:
        """Of errors of complex variance one in the slots of the layer's input."""
        key = (index, layer.inputs, layer.shifts, layer.parts, per)
        if key not in self._found:
            weight, per_input = self.network.hidden[index].weight, layer.shifts * layer.parts
            if index == 0:
                # The conjugate doubles what is real, and complex columns hold half the weights.
                columns = 2 * complex_columns(weight, layer.inputs * per_input)
            else:
                columns = np.zeros((len(weight), layer.inputs * per_input), np.complex128)
                columns[:, : weight.shape[1]] = weight
            errors = shared_columns(columns, layer.inputs, layer.shifts, layer.parts, layer.period) / 2
            self._found[key] = self._reach(index, errors, per)
        return self._found[key]

    def squares(self, index: int, per: int) -> Reach:
        """Of errors of standard deviation one in t²: 2 c4 t² + c3 t + c2 of it, or c3 t, reach the activation."""
        key = (index, "square", per)
        if key not in self._found:
            # Bounds take slopes: these are the slopes of the polynomials below.
            coefficients = self.network.hidden[index].coefficients
            slopes = np.zeros_like(coefficients)
            slopes[:, 2] = coefficients[:, 3] / 2
            if coefficients.shape[1] == 5:
                slopes[:, 3] = 2 * coefficients[:, 4] / 3
                slopes[:, 1] = coefficients[:, 2]
            self._found[key] = self._reach(index, np.ones(len(slopes)), per, slopes)
        return self._found[key]

    def _reach(self, index: int, errors: Floats, per: int, coefficients: Floats | None = None) -> Reach:
        plain = self.plain[index]
        loudest = np.argsort(plain)[-_LOUDEST:]
        own = self.bounds.sensitivity(index, errors, coefficients=coefficients, rows=loudest).max()
        if index + 1 < len(self.network.hidden):
            return Reach(float(own), 0.0)
        starts = np.arange(0, len(plain), per)
        start = int(starts[np.argmax(np.add.reduceat(plain**2, starts))])
        rows = np.arange(start, min(start + per, len(plain)))
        joint = self.bounds.sensitivity(index, errors, coefficients=coefficients, rows=rows, joint=True).max()
        return Reach(float(own), float(np.sqrt(max(0.0, joint**2 - own**2))))
