"""A head in the form that encrypted plans evaluate: affine maps and per-unit polynomials in turn, with bounds.

    t1 = W1 x,  h1 = p1(t1),  t2 = W2 h1, ...,  y = V h + v        p a polynomial of degree <= 4 for each unit

Neighbouring affine layers are merged, biases go into the polynomials: p(Wx + b) = q(Wx) with q(t) = p(t + b), and what
is constant in them into what follows, so p(0) = 0. For 2 units, p = square, b = (1, 0):  q = ((0, 2, 1), (0, 0, 1)) and
the constants (1, 0) move on.

Bounds hold on every input that keeps the contract. With |x| <= ν, a quadratic form sum_h c_h (W x)_h² is at most
ν² max|eig(S diag(c) S)|, S = (W Wᵀ)^(1/2); terms of degree 3 and 4 are reduced to it by |t_h| <= Z_h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import UnsupportedHead
from secure_infer.heads.contract import InputContract
from secure_infer.heads.layers import Floats, Layer, Linear, Polynomial, ReLU, Square

MAX_DEGREE = 4
_EIGEN_WORK = 1e11
"""Beyond this many operations, Frobenius norms stand in for eigenvalues (looser, still bounds)."""


@dataclass(frozen=True, eq=False)
class Hidden:
    """h = p(W x): weight (units, width), coefficients (units, degree + 1) ascending."""

    weight: Floats
    coefficients: Floats

    @property
    def units(self) -> int:
        return len(self.weight)

    @property
    def degree(self) -> int:
        return int(self.coefficients.shape[1]) - 1


class Network:
    """hidden: the hidden layers, none for an affine head. output: the last affine map. Immutable."""

    def __init__(self, hidden: Sequence[Hidden], output: Linear) -> None:
        self.hidden = tuple(hidden)
        self.output = output

    @property
    def features(self) -> int:
        return int((self.hidden[0].weight if self.hidden else self.output.weight).shape[1])

    @property
    def outputs(self) -> int:
        return len(self.output.bias)

    @property
    def widths(self) -> tuple[int, ...]:
        """Input, hidden and output widths."""
        return (self.features, *(layer.units for layer in self.hidden), self.outputs)

    def __call__(self, x: Floats) -> Floats:
        """Outputs (B, K) of rows (B, d)."""
        for layer in self.hidden:
            x = Polynomial(layer.coefficients)(x @ layer.weight.T)
        return self.output(x)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Network:
        """The canonical form of `layers`, the first of them linear.

        Raises UnsupportedHead for a layer that is no polynomial, or one of too high a degree.
        """
        hidden: list[Hidden] = []
        affine: Linear | None = None
        curve: Floats | None = None  # polynomial since the last affine layer, (units or 1, degree + 1)
        for layer in layers:
            if isinstance(layer, Linear):
                if affine is not None and curve is not None:
                    hidden.append(_hidden(affine, curve))
                    affine, curve = layer, None
                else:
                    affine = layer if affine is None else _after(affine, layer)
                continue
            coefficients = _polynomial(layer)
            if affine is None:
                raise UnsupportedHead("encrypted evaluation: expected a linear layer first")
            if curve is None and coefficients.shape[1] <= 2:
                affine = _scaled(affine, coefficients)
            elif curve is None:
                curve = coefficients
            elif (curve.shape[1] - 1) * (coefficients.shape[1] - 1) <= MAX_DEGREE:
                curve = _composed(coefficients, curve, len(affine.bias))
                if curve.shape[1] <= 2:  # a constant
                    affine, curve = _scaled(affine, curve), None
            else:
                hidden.append(_hidden(affine, curve))
                affine, curve = Linear(np.eye(len(affine.bias))), coefficients
        if affine is None:
            raise UnsupportedHead("encrypted evaluation: expected at least one linear layer")
        if curve is not None:
            hidden.append(_hidden(affine, curve))
            affine = Linear(np.eye(len(affine.bias)))
        return cls(*_without_constants(hidden, affine))


def _without_constants(hidden: Sequence[Hidden], output: Linear) -> tuple[list[Hidden], Linear]:
    """Constant terms of activations moved into what follows, so that p(0) = 0 for every unit."""
    moved = list(hidden)
    for index, layer in enumerate(hidden):
        current = moved[index]
        constant = current.coefficients[:, 0]
        rest = current.coefficients.copy()
        rest[:, 0] = 0.0
        moved[index] = Hidden(layer.weight, rest)
        if index + 1 < len(hidden):
            then = moved[index + 1]
            moved[index + 1] = _hidden(Linear(then.weight, then.weight @ constant), then.coefficients)
        else:
            output = Linear(output.weight, output.bias + output.weight @ constant)
    return moved, output


def _polynomial(layer: Layer) -> Floats:
    """Ascending coefficients (units or 1, degree + 1), trailing zero columns dropped."""
    if isinstance(layer, Square):
        coefficients = np.array([[0.0, 0.0, 1.0]])
    elif isinstance(layer, Polynomial):
        coefficients = np.atleast_2d(layer.coefficients)
    else:
        raise UnsupportedHead(
            f"encrypted evaluation: a {layer.kind} layer is no polynomial; replace it by one "
            "(`secure-infer distill` learns a quadratic, `fit_polynomial` fits one to a range)"
            + (", or let two parties evaluate it: --scheme mpc" if isinstance(layer, ReLU) else "")
        )
    used = np.flatnonzero(np.abs(coefficients).max(axis=0))
    degree = int(used[-1]) if len(used) else 0
    if degree > MAX_DEGREE:
        raise UnsupportedHead(
            f"encrypted evaluation: a polynomial of degree {degree}; expected at most {MAX_DEGREE}: fit a lower one"
        )
    return np.asarray(coefficients[:, : degree + 1])


def _after(first: Linear, then: Linear) -> Linear:
    return Linear(then.weight @ first.weight, then.weight @ first.bias + then.bias)


def _scaled(affine: Linear, coefficients: Floats) -> Linear:
    """A polynomial of degree 0 or 1 after an affine map."""
    slope = coefficients[:, 1] if coefficients.shape[1] == 2 else np.zeros(len(coefficients))
    return Linear(affine.weight * slope[:, None], affine.bias * slope + coefficients[:, 0])


def _composed(outer: Floats, inner: Floats, units: int) -> Floats:
    rows = []
    wide = [np.broadcast_to(c, (units, c.shape[1])) for c in (outer, inner)]
    for o, i in zip(*wide, strict=True):
        total = np.zeros(1)
        for coefficient in o[::-1]:
            total = np.polynomial.polynomial.polyadd(np.polynomial.polynomial.polymul(total, i), [coefficient])
        rows.append(np.pad(total, (0, (outer.shape[1] - 1) * (inner.shape[1] - 1) + 1))[: MAX_DEGREE + 1])
    joined = np.stack(rows)
    return joined[:, : (outer.shape[1] - 1) * (inner.shape[1] - 1) + 1]


def _hidden(affine: Linear, coefficients: Floats) -> Hidden:
    """p(Wx + b) as q(Wx), q(t) = p(t + b)."""
    units, degree = len(affine.bias), coefficients.shape[1] - 1
    p = np.broadcast_to(coefficients, (units, degree + 1))
    shifted = np.zeros((units, degree + 1))
    for power in range(degree + 1):
        for low in range(power + 1):
            shifted[:, low] += p[:, power] * comb(power, low) * affine.bias ** (power - low)
    return Hidden(affine.weight, shifted)


class Bounds:
    """What values a network can take, and how errors inside it reach its outputs, on inputs that keep a contract."""

    def __init__(self, network: Network, contract: InputContract) -> None:
        self.network, self.contract = network, contract

    @cached_property
    def units(self) -> list[Floats]:
        """Per hidden layer, Z (units,): the largest |t| of each unit's argument."""
        found: list[Floats] = []
        for index, layer in enumerate(self.network.hidden):
            if index == 0:
                found.append(self.contract.functional_bound(layer.weight))
            else:
                found.append(self._largest(index - 1, self._terms(index - 1), found))
        return found

    @cached_property
    def outputs(self) -> Floats:
        """R_k (K,): the largest |y_k|."""
        out = self.network.output
        if not self.network.hidden:
            return np.asarray(np.abs(out.bias) + self.contract.functional_bound(out.weight))
        terms = output_terms(self.network).copy()
        terms[:, 0, 0] += out.bias
        return self._largest(len(self.network.hidden) - 1, terms, self.units)

    def input_norm(self, index: int) -> float:
        """Largest L2 norm of what hidden layer `index` takes in."""
        if index == 0:
            return self.contract.largest_norm
        before = self.network.hidden[index - 1]
        powers = self.units[index - 1][:, None] ** np.arange(before.degree + 1)
        return float(np.linalg.norm((np.abs(before.coefficients) * powers).sum(axis=1)))

    def change(self, terms: Floats) -> Floats:
        """Largest |sum_h p_kh(t_h)| (K,) for other polynomials, terms (K, units, degree + 1), on the last hidden layer."""
        return self._largest(len(self.network.hidden) - 1, terms, self.units)

    def sensitivity(
        self,
        layer: int,
        errors: Floats,
        *,
        coefficients: Floats | None = None,
        rows: NDArray[np.intp] | None = None,
        joint: bool = False,
    ) -> Floats:
        """Largest root mean square error of each output (K,) when the arguments t of that hidden layer carry errors of
        standard deviation `errors` (units,), independent, or of covariance `errors` (units, units). To first order.

        coefficients: activations (units, degree + 1) whose slopes carry the errors on instead of the layer's own.
        rows: outputs asked for, all by default. joint: (1,), the root of the sum of their squares, at one input.
        """
        last = len(self.network.hidden) - 1
        terms = output_terms(self.network) if layer < last or coefficients is None else self._terms(last, coefficients)
        if rows is not None:
            terms = terms[rows]
        if layer == last:
            return self._gradient(last, terms, errors, joint=joint)
        # Through later layers: |sum_j g_j D_j| <= sum_j |g_j| |D_j|.
        steepest = self._steepest(last, terms)
        for index in range(last - 1, layer, -1):
            steepest = steepest @ self._steepest(index, self._terms(index))
        found = steepest @ self._gradient(layer, self._terms(layer, coefficients), errors)
        return np.array([np.linalg.norm(found)]) if joint else np.asarray(found)

    def _terms(self, index: int, coefficients: Floats | None = None) -> Floats:
        """Like `output_terms`, for what follows hidden layer `index`."""
        hidden = self.network.hidden
        following = hidden[index + 1].weight if index + 1 < len(hidden) else self.network.output.weight
        own = hidden[index].coefficients if coefficients is None else coefficients
        return np.asarray(own[None] * following[:, :, None])

    def _largest(self, index: int, terms: Floats, units: Sequence[Floats]) -> Floats:
        """Largest |sum_h p_kh(t_h)| with t of hidden layer `index`; terms (K, units, degree + 1)."""
        z = units[index]
        powers = z[:, None] ** np.arange(terms.shape[2])
        constant = np.abs(terms[:, :, 0].sum(axis=1))
        interval = constant + np.abs(terms[:, :, 1:] * powers[None, :, 1:]).sum(axis=(1, 2))
        if index:
            return np.asarray(interval)
        weight, norm = self.network.hidden[0].weight, self.contract.largest_norm
        linear = self.contract.functional_bound(terms[:, :, 1] @ weight) if terms.shape[2] > 1 else 0.0
        total = constant + linear
        if terms.shape[2] > 2:
            total = total + norm**2 * self._eigen(terms[:, :, 2])
        if terms.shape[2] > 3:
            total = total + norm**2 * self._eigen(np.abs(terms[:, :, 3:] * powers[None, :, 1:-2]).sum(axis=2))
        return np.asarray(np.minimum(interval, total))

    def _slopes(self, index: int, terms: Floats) -> Floats:
        """|p'(t)| / |t| without its constant part, at most (K, units)."""
        z = self.units[index]
        slopes = np.zeros(terms.shape[:2])
        for power in range(2, terms.shape[2]):
            slopes += power * np.abs(terms[:, :, power]) * z ** (power - 2)
        return slopes

    def _steepest(self, index: int, terms: Floats) -> Floats:
        """Largest |p'(t)| of each unit (K, units)."""
        flat = np.abs(terms[:, :, 1]) if terms.shape[2] > 1 else np.zeros(terms.shape[:2])
        return np.asarray(flat + self._slopes(index, terms) * self.units[index])

    def _gradient(self, index: int, terms: Floats, errors: Floats, *, joint: bool = False) -> Floats:
        """Largest root of g' C g (K,), g_h = p_kh'(t_h), C the covariance of errors. joint: of their sum over k, (1,)."""
        if errors.ndim == 2 and (index or terms.shape[2] > 3):
            # Signs of the slopes are lost beyond degree 2 and in later layers: C is bounded by its row sums.
            errors = np.sqrt(np.abs(errors).sum(axis=1))
        if errors.ndim == 2:
            return self._covariant(terms, errors, joint=joint)

        def squares(slopes: Floats) -> Floats:
            found = (slopes * errors) ** 2
            return np.asarray(found.sum(axis=0, keepdims=True) if joint else found)

        interval = np.sqrt(squares(self._steepest(index, terms)).sum(axis=1))
        if index:
            return np.asarray(interval)
        curved = self.contract.largest_norm * np.sqrt(self._eigen(squares(self._slopes(index, terms))))
        flat = np.sqrt(squares(terms[:, :, 1]).sum(axis=1))
        return np.asarray(np.minimum(interval, curved + flat))

    def _covariant(self, terms: Floats, covariance: Floats, *, joint: bool) -> Floats:
        """`_gradient` of quadratics: g = 2 c2 t + c1, and t' M t with M_hi = 4 c2_h C_hi c2_i."""
        flat = np.sqrt(
            np.maximum(0.0, np.einsum("kh,hi,ki->k", terms[:, :, 1], covariance, terms[:, :, 1], optimize=True))
        )
        groups = [terms[:, :, 2]] if joint else [row[None] for row in terms[:, :, 2]]
        root = self._root
        largest = [np.linalg.eigvalsh(root.T @ (4 * covariance * (c.T @ c)) @ root)[-1] for c in groups]
        curved = self.contract.largest_norm * np.sqrt(np.maximum(0.0, largest))
        return np.asarray(curved + (np.linalg.norm(flat) if joint else flat))

    @cached_property
    def _root(self) -> Floats:
        """(W Wᵀ)^(1/2) or, when the input is narrower than the layer, a factor F (units, d) with F Fᵀ = W Wᵀ."""
        weight = self.network.hidden[0].weight
        if weight.shape[1] <= weight.shape[0]:
            return weight
        return _factor(weight @ weight.T)

    def _eigen(self, diagonals: Floats) -> Floats:
        """max|eig(Fᵀ diag(c) F)| for each row c (K, units) of `diagonals`."""
        root = self._root
        size = root.shape[1]
        if len(diagonals) * float(size) ** 3 > _EIGEN_WORK:
            return np.array([np.linalg.norm(root.T @ (row[:, None] * root)) for row in diagonals])
        return np.array(
            [np.abs(np.linalg.eigvalsh(root.T @ (row[:, None] * root))[[0, -1]]).max() for row in diagonals]
        )


def _factor(symmetric: Floats) -> Floats:
    """F with F Fᵀ = a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def output_terms(network: Network) -> Floats:
    """(K, units, degree + 1): output k is sum_h of the polynomial terms[k, h] of the last hidden layer, plus a bias."""
    return np.asarray(network.hidden[-1].coefficients[None] * network.output.weight[:, :, None])
