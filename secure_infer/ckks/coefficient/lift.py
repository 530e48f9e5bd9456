"""Polynomial heads as affine ones: the client sends monomials of its features, the server weighs them.

Hidden layers on d features are a polynomial in x, of the product D of their degrees, so an affine map of the monomials up
to D. For d = 2, D = 2: 5 of them, (x0, x1, x0², √2 x0 x1, x1²). The factor √(number of orders) makes the monomials of degree j
as long as |x|^j, and division by ν^j, ν the largest norm of an accepted row, keeps each degree within length one. So few
features make hidden layers cost what affine heads cost: no depth, no rotations, no switching keys; and what could be
learned of the model by sending anything else than monomials is the function itself, not its layers.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import UnsupportedHead
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Network, output_terms

Floats = NDArray[np.float64]
MAX_TERMS = 1 << 15
MAX_DEEP_TERMS = 1 << 12  # where layers are multiplied out
MAX_LIFT = 8
_BLOCK = 4096  # monomials expanded at a time


def count(features: int, degree: int) -> int:
    """Monomials of degree 1 to `degree`."""
    return math.comb(features + degree, degree) - 1


@lru_cache(maxsize=8)
def _monomials(features: int, power: int) -> tuple[NDArray[np.intp], Floats]:
    """The monomials of one degree: indices (terms, power) of their factors, and √(number of orders)."""
    index = np.array(list(combinations_with_replacement(range(features), power)), np.intp)
    orders = [
        math.factorial(power) // math.prod(math.factorial(n) for n in Counter(row).values()) for row in index.tolist()
    ]
    return index, np.sqrt(np.array(orders, np.float64))


def lift(x: Floats, degree: int, norm: float) -> Floats:
    """The monomials (terms,) of a row x (d,)."""
    blocks = []
    for power in range(1, degree + 1):
        index, factor = _monomials(len(x), power)
        blocks.append(factor * np.prod((x / norm)[index], axis=1))
    return np.concatenate(blocks)


def lifted_contract(contract: InputContract, degree: int) -> InputContract:
    """What the monomials of accepted rows keep."""
    return InputContract(count(contract.features, degree), 1.0 + 1e-9, math.sqrt(degree))


def total_degree(network: Network) -> int:
    """D: the degree of the outputs as polynomials of the features."""
    return math.prod(layer.degree for layer in network.hidden)


def lifted(network: Network, contract: InputContract) -> Linear:
    """A network with hidden layers as an affine map of monomials; raises UnsupportedHead when there are too many."""
    degree = total_degree(network)
    terms = count(network.features, degree) if degree <= MAX_LIFT else math.inf
    most = MAX_TERMS if len(network.hidden) == 1 else MAX_DEEP_TERMS
    if terms > most:
        raise UnsupportedHead(
            f"monomials: a polynomial of degree {degree} in {network.features} features; at most degree {MAX_LIFT} and "
            f"{most} monomials are sent"
        )
    expand = _one_layer if len(network.hidden) == 1 else _layers
    return Linear(expand(network, contract.largest_norm), network.output.bias)


def _one_layer(network: Network, norm: float) -> Floats:
    """Weights (K, terms): (w·x)^j = sum over monomials of (number of orders) · prod w · prod x."""
    layer, coefficients, blocks = network.hidden[0], output_terms(network), []
    for power in range(1, layer.degree + 1):
        index, factor = _monomials(network.features, power)
        for start in range(0, len(index), _BLOCK):
            some = slice(start, start + _BLOCK)
            weights = np.prod(layer.weight[:, index[some]], axis=2) * factor[some]
            blocks.append(coefficients[:, :, power] @ weights * norm**power)
    return np.concatenate(blocks, axis=1)


def _layers(network: Network, norm: float) -> Floats:
    """Weights (K, terms), by multiplying the polynomials of the units out, layer after layer."""
    features, degree = network.features, 1
    units = np.eye(features, features + 1, 1) * norm  # the constant, then x/ν
    for layer in network.hidden:
        argument = layer.weight @ units
        units, reached = np.zeros((layer.units, 1)), 0
        for power in range(layer.degree, -1, -1):  # Horner; the leading coefficient needs no product before it
            if power < layer.degree:
                units = _product(units, argument, _table(features, reached, degree))
                reached += degree
            units[:, 0] += layer.coefficients[:, power]
        degree = reached
    roots = np.concatenate([_monomials(features, power)[1] for power in range(1, degree + 1)])
    # p(0) = 0 for every unit, so there is no constant to add to the bias.
    return np.asarray(network.output.weight @ units[:, 1:] / roots)


def _product(a: Floats, b: Floats, table: NDArray[np.intp]) -> Floats:
    """Products of polynomials, one a row, as coefficients of monomials; `table` says where a pair of monomials lands."""
    found = np.zeros((len(a), int(table.max()) + 1))
    for i, places in enumerate(table):
        found[:, places] += a[:, i : i + 1] * b
    return found


@lru_cache(maxsize=16)
def _table(features: int, first: int, second: int) -> NDArray[np.intp]:
    """The place of the product of each monomial up to degree `first` and each up to `second`; 1 has place 0."""
    rows: list[tuple[int, ...]] = [()]
    for power in range(1, first + second + 1):
        rows += map(tuple, _monomials(features, power)[0].tolist())
    place = {row: i for i, row in enumerate(rows)}
    sizes = [count(features, degree) + 1 if degree else 1 for degree in (first, second)]
    return np.array([[place[tuple(sorted(a + b))] for b in rows[: sizes[1]]] for a in rows[: sizes[0]]], np.intp)
