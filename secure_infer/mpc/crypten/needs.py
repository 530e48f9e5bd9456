"""The correlations that CrypTen's protocols take, which follow from shapes alone. numpy only.

Each need is one opening, so one round: And and Product open two words an element, Bits one. For n numbers,

    sign       1 And(n), 6 And(2n), 1 Bits(n)       shares to bits by a carry tree over 64 bits, the top bit back again
    relu       sign, 1 Product(n)                   9 rounds, 232 bytes a number each way

Products are those of `secure_infer.mpc.correlations`; `provider` hands all of them to CrypTen, which must ask in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secure_infer.mpc.correlations import SUM, XOR, Field, Need, Product, Shares
from secure_infer.mpc.ring import Matrix

TREE = 6
"""Levels of a carry tree over 64 bits."""

TIE_BITS = 16
"""Random bits by which argmax chooses among equal numbers."""

_MOST_FACTORS = 128
"""From so many comparisons a class on, argmax counts them and compares the count, instead of multiplying them."""


@dataclass(frozen=True)
class And(Need):
    """a, b and a AND b of `count` words, bit by bit; all shared by XOR."""

    kind: ClassVar[str] = "crypten.and"
    count: int

    def masks(self) -> tuple[Field, ...]:
        return Field("a", (self.count,), XOR), Field("b", (self.count,), XOR)

    def derived(self) -> tuple[Field, ...]:
        return (Field("ab", (self.count,), XOR),)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        return {"ab": masks["a"] & masks["b"]}


@dataclass(frozen=True)
class Bits(Need):
    """`count` random bits, each the lowest of an XOR-shared word and, the same again, an additively shared number."""

    kind: ClassVar[str] = "crypten.bits"
    count: int

    def masks(self) -> tuple[Field, ...]:
        return (Field("bit", (self.count,), XOR),)

    def derived(self) -> tuple[Field, ...]:
        return (Field("number", (self.count,), SUM),)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        return {"number": masks["bit"] & np.uint64(1)}


def positive_needs(count: int) -> tuple[Need, ...]:
    """For whether each of `count` numbers is above zero: their signs."""
    return (And(count), *[And(2 * count)] * TREE, Bits(count))


def relu_needs(count: int) -> tuple[Need, ...]:
    """For max(x, 0) of `count` numbers."""
    return (*positive_needs(count), Product(count))


def labels_needs(rows: int, classes: int) -> tuple[Need, ...]:
    """For the largest of `classes` (2 or more) numbers in each row, by comparing every class with every other.

    The comparisons of a class are multiplied, pairwise, so that its product is 1 where it is the largest; then one of the
    largest is chosen at random: the first whose running count exceeds a random number below the count of all.
    """
    others = classes - 1
    found = list(positive_needs(others * rows * classes))
    if others < _MOST_FACTORS:
        while others > 1:
            found.append(Product(others // 2 * rows * classes))
            others -= others // 2
    else:
        found += positive_needs(rows * classes)
    return (*found, Bits(TIE_BITS * rows), Product(rows), *positive_needs(rows * classes))


def rounds(needs: Sequence[Need]) -> int:
    """Rounds of a protocol with these needs."""
    return len(needs)


def link_bytes(needs: Sequence[Need]) -> int:
    """Payload bytes that each party sends for them: every mask is used in one opening."""
    return sum(8 * field.words for need in needs for field in need.masks())
