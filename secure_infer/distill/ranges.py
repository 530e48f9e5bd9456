"""How large a head's logits can get on inputs of its norm contract: what encrypted evaluation has to make room for."""

from __future__ import annotations

import math

import numpy as np

from secure_infer.ckks.coefficient.planner import largest_logit
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head, Linear, Polynomial

MARGIN = 1.5
"""Inputs may exceed the largest value, and the largest norm, of the training data by this factor."""


def logit_range(head: Head) -> float:
    """R: no |logit| exceeds it for any input with |x|₂ <= the contract's largest norm.

    Linear heads: max_k |w_k| nu + |b_k|. Linear-Polynomial(2)-Linear heads: each logit is
    x'Mx + v'x + c, bounded by max |eigenvalue of M| nu² + |v| nu + |c|. Raises UnsupportedHead for other shapes.
    """
    norm = head.contract.largest_norm
    linear = head.as_linear()
    if linear is not None:
        return largest_logit(linear, head.contract)
    match head.layers:
        case (Linear() as first, Polynomial() as square, Linear() as last) if square.degree == 2:
            c0, c1, c2 = np.broadcast_to(square.coefficients, (len(first.weight), 3)).T
            worst = 0.0
            for weight, bias in zip(last.weight, last.bias, strict=True):
                matrix = (first.weight.T * (weight * c2)) @ first.weight
                slope = (weight * (2 * c2 * first.bias + c1)) @ first.weight
                constant = float(weight @ (c2 * first.bias**2 + c1 * first.bias + c0) + bias)
                spectral = float(np.abs(np.linalg.eigvalsh(matrix)).max())
                worst = max(worst, spectral * norm**2 + float(np.linalg.norm(slope)) * norm + abs(constant))
            return worst
    raise UnsupportedHead(f"logit range: expected a linear or a linear-quadratic-linear head, got {head!r}")


def hidden_range(head: Head) -> float:
    """The largest |input| of the first activation, over every input the contract accepts."""
    first = head.layers[0]
    if not isinstance(first, Linear):  # `Head` requires a linear layer first
        raise UnsupportedHead(f"hidden range: expected a linear layer first, got {first.kind}")
    return float((np.abs(first.bias) + head.contract.functional_bound(first.weight)).max())


def with_margin(largest: float) -> float:
    """`largest`, positive, times MARGIN, rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(MARGIN * largest)) - 1)
    return float(f"{math.ceil(MARGIN * largest / unit) * unit:.2g}")
