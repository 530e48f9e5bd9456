"""CrypTen's source of correlations: the session's bundle, each piece once and in its order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc.correlations import Product
from secure_infer.mpc.crypten import session
from secure_infer.mpc.crypten.imports import load
from secure_infer.mpc.crypten.needs import And, Bits
from secure_infer.mpc.crypten.tensors import from_words
from secure_infer.mpc.ring import Words

Size = Sequence[int]


class DealtProvider:
    """In the place of CrypTen's providers; methods carry CrypTen's names. What ReLU and argmax do not ask for is missing.

    Every method raises CorrelationMisuse when the bundle holds something else next.
    """

    def generate_additive_triple(self, size0: Size, size1: Size, op: str, device: Any = None, **options: Any) -> Any:
        """Shares of a, b and a b, elementwise."""
        if op != "mul" or tuple(size0) != tuple(size1) or options:
            raise CorrelationMisuse(f"crypten: products are elementwise on equal shapes, {op} was asked for")
        shares = session.current().correlations.take(Product(math.prod(size0)))
        return tuple(_additive(shares[name], size0) for name in ("a", "b", "ab"))

    def generate_binary_triple(self, size0: Size, size1: Size, device: Any = None) -> Any:
        """XOR shares of a, b and a AND b."""
        if tuple(size0) != tuple(size1):
            raise CorrelationMisuse("crypten: AND is on equal shapes")
        shares = session.current().correlations.take(And(math.prod(size0)))
        return tuple(_binary(shares[name], size0) for name in ("a", "b", "ab"))

    def B2A_rng(self, size: Size, device: Any = None) -> Any:  # noqa: N802
        """Random bits, as additive shares and as XOR shares."""
        shares = session.current().correlations.take(Bits(math.prod(size)))
        return _additive(shares["number"], size), _binary(shares["bit"] & np.uint64(1), size)


def _additive(words: Words, size: Size) -> Any:
    tensor = from_words(words.reshape(tuple(size)))
    return load().mpc.primitives.ArithmeticSharedTensor.from_shares(tensor, precision=0)


def _binary(words: Words, size: Size) -> Any:
    return load().mpc.primitives.BinarySharedTensor.from_shares(from_words(words.reshape(tuple(size))), precision=0)
