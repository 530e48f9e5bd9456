"""Fixed masks of shared weights, from a seed: one 32-byte seed a party, model and dealer epoch.

A weight tensor W is opened once as W - b, b = b_0 + b_1; each party expands its b_p from its own seed, and the dealer both,
since it needs b for the products a b. Two openings under one b would show their difference. So seeds are drawn anew for
every epoch, and each model has its own, also beside one of the same program: a recipe's `program` tells both.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_infer.mpc.ring import Words
from secure_infer.mpc.streams import KeyedStream, derive

Shapes = Mapping[int, tuple[int, int]]
"""(inputs, outputs) by tensor, as `Recipe.tensors` gives them."""


def expand(seed: bytes, shapes: Shapes) -> dict[int, Words]:
    """One party's masks (inputs, outputs) by tensor. Each tensor has a key of its own, so that a mask does not depend on
    which others are asked for."""
    return {
        tensor: KeyedStream(derive(seed, f"weights {tensor}")).words(inputs * outputs).reshape(inputs, outputs)
        for tensor, (inputs, outputs) in shapes.items()
    }


def mask_bytes(shapes: Shapes) -> int:
    """Bytes of those masks, expanded."""
    return 8 * sum(inputs * outputs for inputs, outputs in shapes.values())
