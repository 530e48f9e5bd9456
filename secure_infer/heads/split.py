"""Split heads: leading public layers that clients evaluate in the clear, and the rest, which stays hidden.

A head 384 -> 256 -> 21 whose first layer is public leaves 256 numbers to encrypt, and no matrix product to pay for. The
price: everyone who may ask gets the public layers, and what is left to hide is what follows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secure_infer.errors import InvalidHead, UnsupportedHead
from secure_infer.heads.contract import InputContract
from secure_infer.heads.head import Head
from secure_infer.heads.layers import Floats, Layer, Linear, Polynomial, Square
from secure_infer.heads.network import Network


def evaluate_layers(layers: Sequence[Layer], x: Floats) -> Floats:
    """Rows (B, width) after the layers."""
    for layer in layers:
        x = layer(x)
    return x


def public_layers(head: Head) -> tuple[Layer, ...]:
    return head.layers[: head.public_layers]


def private_network(head: Head) -> Network:
    """What the server evaluates on ciphertexts, in canonical form; raises UnsupportedHead when nothing is left, or a
    layer is no polynomial."""
    layers = list(head.layers[head.public_layers :])
    if not layers:
        raise UnsupportedHead("every layer of the head is public: nothing is left to hide; evaluate it on the client")
    if not isinstance(layers[0], Linear):
        width = len(evaluate_layers(public_layers(head), np.zeros((1, head.features)))[0])
        layers.insert(0, Linear(np.eye(width)))
    return Network.of(layers)


def contract_after(layers: Sequence[Layer], contract: InputContract) -> InputContract:
    """What rows keep after the layers, given what they kept before; raises InvalidHead when that is no number."""
    for layer in layers:
        with np.errstate(over="ignore", invalid="ignore"):
            largest, norm = _largest(layer, contract)
            norm = min(norm, float(np.linalg.norm(largest)))
        if not (np.isfinite(largest).all() and math.isfinite(norm)):
            raise InvalidHead("public layers: they take rows beyond all numbers; scale the model")
        # A hair more, so that rounding on another machine never counts as a breach.
        contract = InputContract(len(largest), max(1e-9, float(largest.max()) * 1.001), max(1e-9, norm * 1.001))
    return contract


def _largest(layer: Layer, contract: InputContract) -> tuple[Floats, float]:
    """The largest |value| of each unit after a layer, and the largest norm of a row."""
    if isinstance(layer, Linear):
        norm = float(np.linalg.norm(layer.weight, 2)) * contract.largest_norm + float(np.linalg.norm(layer.bias))
        return contract.functional_bound(layer.weight) + np.abs(layer.bias), norm
    if isinstance(layer, Square | Polynomial):
        ascending = np.array([0.0, 0.0, 1.0]) if isinstance(layer, Square) else layer.coefficients
        coefficients = np.broadcast_to(ascending, (contract.features, ascending.shape[-1]))
        powers = np.float64(contract.bound) ** np.arange(coefficients.shape[1])
        return np.asarray(np.abs(coefficients) @ powers), math.inf
    return np.full(contract.features, contract.bound), contract.largest_norm  # ReLU lengthens no row
