"""How large a head's logits can get on inputs of its norm contract: what encrypted evaluation has to make room for."""

from __future__ import annotations

import math

import numpy as np

from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head, Linear, Polynomial

ALLOWED_ERROR = 1e-3
"""tau: the logit error a plan may make."""

FLOOD = 0.125 * ALLOWED_ERROR
"""Standard deviation of the noise that hides the weights in an answer."""


def logit_range(head: Head) -> float:
    """R: no |logit| exceeds it for any input with |x|₂ <= the contract's largest norm.

    Linear heads: max_k |w_k| nu + |b_k|. Linear-Polynomial(2)-Linear heads: each logit is
    x'Mx + v'x + c, bounded by max |eigenvalue of M| nu² + |v| nu + |c|. Raises UnsupportedHead for other shapes.
    """
    norm = head.contract.largest_norm
    linear = head.as_linear()
    if linear is not None:
        return float((head.contract.functional_bound(linear.weight) + np.abs(linear.bias)).max())
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


def smudging_bits(head: Head) -> float:
    """s of a linear head in one product modulo a 60-bit prime: log2(flood / evaluation noise), at the allowed error.

    What the modulus has left after the weights' scale, the range (up to a power of two) and the input's scale.
    """
    linear = head.as_linear()
    if linear is None:
        raise UnsupportedHead(f"smudging bits: expected a linear head, got {head!r}")
    weights = math.log2(head.contract.largest_norm * math.sqrt(head.features / 12) / (0.2 * ALLOWED_ERROR))
    room = math.log2(2.1 * 2.0 ** math.ceil(math.log2(logit_range(head))))
    return 60 - weights - room - math.log2(3.24 * float(np.linalg.norm(linear.weight)) / FLOOD)
