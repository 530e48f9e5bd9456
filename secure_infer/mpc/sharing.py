"""Additive sharing: x = x_0 + x_1 mod 2^64, each share uniform by itself.

x = 5: x_0 = 2^64 - 3 from the operating system, x_1 = 8.
"""

from __future__ import annotations

from secure_infer.mpc.ring import Words
from secure_infer.mpc.streams import uniform_words


def split(x: Words) -> tuple[Words, Words]:
    """Two shares of words of any shape."""
    first = uniform_words(x.size).reshape(x.shape)
    return first, x - first


def join(first: Words, second: Words) -> Words:
    """The words that two shares stand for."""
    return first + second
