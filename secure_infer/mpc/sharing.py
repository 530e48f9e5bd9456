"""Additive sharing: x = x_0 + x_1 mod 2^64, each share uniform by itself.

x = 5: x_0 = 2^64 - 3 from the operating system, x_1 = 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secure_infer.mpc.ring import Words, encode
from secure_infer.mpc.streams import uniform_words


def split(x: Words) -> tuple[Words, Words]:
    """Two shares of words of any shape."""
    first = uniform_words(x.size).reshape(x.shape)
    return first, x - first


def encode_fairly(x: Any, fraction: int) -> Words:
    """Reals at `fraction` bits, each rounded up or down at random so that it is right on average: errors of inputs are then
    independent whatever the inputs, which bounds on logits rely on. 1.25 at no bits is 1 three times of four, else 2."""
    numbers = np.asarray(x, dtype=np.float64)
    chance = (uniform_words(numbers.size) >> np.uint64(11)).astype(np.float64).reshape(numbers.shape) * 2.0**-53
    return encode(np.floor(np.ldexp(numbers, fraction) + chance), 0)


def join(first: Words, second: Words) -> Words:
    """The words that two shares stand for."""
    return first + second
