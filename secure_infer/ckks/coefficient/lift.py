"""Polynomial heads as affine ones: the client sends monomials of its features, the server weighs them.

A hidden layer of degree D on d features is a polynomial of degree D in x, so an affine map of the monomials up to D. For
d = 2, D = 2: 5 of them, (x0, x1, x0², √2 x0 x1, x1²). The factor √(number of orders) makes the monomials of degree j
as long as |x|^j, and division by ν^j, ν the largest norm of an accepted row, keeps each degree within length one. So few features
make hidden layers cost what affine heads cost: no depth, no rotations, no switching keys; and what could be learned of
the model by sending anything else than monomials is the function itself, not its layers.
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
MAX_TERMS = 1 << 17
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


def lifted(network: Network, contract: InputContract) -> Linear:
    """A network of one hidden layer as an affine map of monomials; raises UnsupportedHead when there are too many."""
    if len(network.hidden) != 1:
        raise UnsupportedHead("monomials: expected one hidden layer")
    layer = network.hidden[0]
    terms = count(network.features, layer.degree)
    if terms > MAX_TERMS:
        raise UnsupportedHead(f"monomials: {terms} of them up to degree {layer.degree}; at most {MAX_TERMS} are sent")
    coefficients, blocks = output_terms(network), []
    for power in range(1, layer.degree + 1):
        index, factor = _monomials(network.features, power)
        # (w·x)^power = sum over monomials of (number of orders) · prod w · prod x
        for start in range(0, len(index), _BLOCK):
            some = slice(start, start + _BLOCK)
            weights = np.prod(layer.weight[:, index[some]], axis=2) * factor[some]
            blocks.append(coefficients[:, :, power] @ weights * contract.largest_norm**power)
    return Linear(np.concatenate(blocks, axis=1), network.output.bias)
