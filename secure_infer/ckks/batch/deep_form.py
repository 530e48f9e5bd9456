"""A head of two forms: one hidden layer of degree 3 or 4, or two hidden layers of quadratics; with its bounds.

`deep_planner` says how the two forms make the head.
"""

from __future__ import annotations

import math

import numpy as np

from secure_infer.ckks.batch.affine_planner import rounded
from secure_infer.ckks.batch.quadratic import Form
from secure_infer.ckks.batch.quadratic_planner import QuadraticForm
from secure_infer.ckks.plan import power_of_two
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.layers import Floats
from secure_infer.heads.network import Bounds, Network


class DeepForm:
    """A head of two forms with its bounds; `inner` is None where the first form is the squares of single units."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        if len(network.hidden) > 2 or (len(network.hidden) == 2 and max(h.degree for h in network.hidden) > 2):
            raise UnsupportedHead(
                "batch plan: expected one hidden layer of degree at most 4, or two of degree at most 2, "
                f"got degrees {[h.degree for h in network.hidden]}"
            )
        self.network, self.contract, self.bounds = network, contract, Bounds(network, contract)
        self.weight = network.hidden[0].weight
        self.inner: QuadraticForm | None = None
        if len(network.hidden) == 2:
            last = network.hidden[1].weight
            self.inner = QuadraticForm(Network(network.hidden[:1], Linear(last)), contract)
        self.coefficients = np.zeros((network.hidden[-1].units, 5))
        self.coefficients[:, : network.hidden[-1].degree + 1] = network.hidden[-1].coefficients
        ones = np.ones(len(self.weight))
        self.slope = float(self.bounds.sensitivity(0, ones).max())  # |∇_t y|
        self.steepest = min(
            self.slope * float(np.linalg.norm(self.weight, 2)),
            float(self.bounds.sensitivity(0, self.weight @ self.weight.T).max()),
        )
        self.largest = float(self.bounds.outputs.max())
        self.variables = self.bounds.units[-1] if self.inner else self.bounds.units[0] ** 2

    def scales(self, budget: float) -> tuple[float, float, float]:
        """S1, S2, S3 of the first form at which rounding costs at most `budget`; the latter two are 1 without `inner`."""
        reach = self.slope * self.contract.largest_norm
        first = power_of_two(max(1.0, 0.3 * reach * math.sqrt(self.weight.size) / budget))
        while reach * np.linalg.norm(rounded(self.weight, first) / first - self.weight, 2) > budget / 2:
            first *= 2
        if self.inner is None:
            return first, 1.0, 1.0
        outer = float(self.bounds.sensitivity(1, np.ones(len(self.coefficients))).max())
        second = third = 2.0**10
        while outer * np.linalg.norm(self.inner.rounding_errors(math.inf, second, third)) > budget / 2:
            second, third = second * 2, third * 2
        return first, second, min(third, 4 * first**2 * second)

    def outer(self, kappa: Floats) -> tuple[Floats, Floats]:
        """(polynomials of the squares, of the linear terms) of the second form, in t: see `_terms`."""
        c = self.coefficients
        if self.inner is not None:
            return c[:, 2:3], c[:, 1:2]
        beta = c[:, 3] / (2 * kappa)
        return np.stack([c[:, 4] - beta, beta], 1), np.stack([c[:, 2] - kappa * c[:, 3] / 2, c[:, 1]], 1)

    def rounding_slope(self, kappa: Floats) -> float:
        """Largest root of sum_h (∂y/∂variable_h)² over the rounded variables."""
        if self.inner is not None:
            return float(self.bounds.sensitivity(1, np.ones(len(self.coefficients))).max())
        z, c = self.bounds.units[0], self.coefficients
        steep = 2 * np.abs(c[:, 4]) * z**2 + np.abs(c[:, 3]) * z + np.abs(c[:, 2] - kappa * c[:, 3] / 2)
        return float(np.linalg.norm(self.network.output.weight * steep, axis=1).max())

    def first(self, scales: tuple[float, float, float], input_scale: int) -> Form:
        """The first form in integers at these scales."""
        first, second, third = scales
        if self.inner is None:
            return Form(rounded(self.weight, first), None, None, 1)
        linear = rounded(self.inner.linear, third)
        lift = input_scale * int(4 * first**2 * second // third)
        hidden, output = rounded(self.inner.hidden, first), rounded(self.inner.output, second)
        return Form(hidden, output, linear if linear.any() else None, lift)

    def first_error(self, scales: tuple[float, float, float]) -> float:
        """What rounding the first form at these scales costs a logit at most."""
        first, second, third = scales
        moved = np.linalg.norm(rounded(self.weight, first) / first - self.weight, 2)
        cost = self.slope * self.contract.largest_norm * float(moved)
        if self.inner is not None:
            outer = float(self.bounds.sensitivity(1, np.ones(len(self.coefficients))).max())
            cost += outer * float(np.linalg.norm(self.inner.rounding_errors(math.inf, second, third)))
        return cost
