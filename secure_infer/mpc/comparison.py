"""Comparisons by one-time truth tables: the sign of a shared number in two rounds, ReLU and argmax in three.

A dealer that knows the mask a of an opening E = x - a can share any small table of E before E is known (Ishai et al., "On
the power of correlated randomness in secure computation", TCC 2013; Damgård et al., "TinyTable", CRYPTO 2017). Both parties
look it up at the public E, and hold shares of the entry.

The sign of x = E + a, taken mod 2^32, is bit 31 of E, plus bit 31 of a, plus the carry into bit 31. There is a carry exactly
where e > r, with e and r the low 31 bits of E and of NOT a. Digit by digit, from the top:

    e > r  =  gt4 + eq4 (gt3 + eq3 (gt2 + eq2 (gt1 + eq1 gt0)))          over bits; digits of 7, 6, 6, 6 and 6 bits

Round 1 opens E; the tables give shares of every gt_j and eq_j. Round 2 opens eight of them under masks, one byte in all; one
more table, of 256 bits, gives the rest. Worked example with digits of one bit and x = E + a of 3 bits, a = 5 = 101:
r = NOT 01 = 10. E = 6 = 110 gives e = 10: gt1 = 0, eq1 = 1, gt0 = 0, no carry; the sign bit is 1 + 1 + 0 = 0, and
6 + 5 = 11 = 3 mod 8 is not negative.

Why it reveals nothing: every opened value is covered by a mask that is uniform, used once and unknown to both, and shares of
tables are uniform by themselves. What a party sees can be drawn at random without knowing x.

Comparisons look at the low 32 bits alone, where errors of truncation (multiples of 2^32 and more) vanish; a program is
compiled only when its numbers fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from secure_infer.mpc.correlations import MOD, PRIME, SUM, XOR, Correlations, Field, Need, Shares, uniform_mod
from secure_infer.mpc.link import Link, Xor, opened
from secure_infer.mpc.ring import Matrix, Words

VALUE_BITS = 31
"""Numbers that are compared stay below 2^31 in absolute value, at their fraction bits."""

_DIGIT = 6
_LOW_DIGITS = 4
_TABLES = 11
"""Words an element: gt0 to gt3, gt4 (two words), eq1 to eq3, eq4 (two words)."""
_COMBINED = 4

_ONE = np.uint64(1)
_SIX = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def _word(value: int) -> np.uint64:
    return np.uint64(value)


def _digits(words: Words) -> list[Words]:
    """The low 31 bits of each word in digits of 6, 6, 6, 6 and 7 bits, the lowest first."""
    low = [(words >> _word(_DIGIT * j)) & _SIX for j in range(_LOW_DIGITS)]
    return [*low, (words >> _word(_DIGIT * _LOW_DIGITS)) & _word(127)]


def _bit31(words: Words) -> Words:
    return (words >> _word(31)) & _ONE


@lru_cache(maxsize=1)
def _combining() -> Words:
    """(256, 4): for each mask alpha of the eight bits, bit d of the 256 is the function of d XOR alpha.

    Bits 0 to 3 are gt0 to gt3, bits 4 to 7 are eq1 to eq4.
    """
    index = np.arange(256)
    gt = [(index >> j) & 1 for j in range(4)]
    eq = {j: (index >> (3 + j)) & 1 for j in range(1, 5)}
    value = gt[0]
    for j in range(1, 4):
        value = gt[j] ^ (eq[j] & value)
    value = eq[4] & value
    shifted = value[index[:, None] ^ index[None, :]].astype(np.uint8)
    return np.packbits(shifted, axis=1, bitorder="little").view(np.uint64)


def _tables(mask: Words) -> Words:
    """(..., 11) for masks a (...,): the tables of "greater" and "equal" for each digit of r."""
    *low, top = _digits(~mask)
    found = np.empty((*mask.shape, _TABLES), dtype=np.uint64)
    for j, digit in enumerate(low):
        # Bits above the digit: entries where e_j > r_j.
        found[..., j] = (_ALL << digit) << _ONE
        if j:
            found[..., 5 + j] = _ONE << digit
    upper, rest = top >= _word(64), top & _SIX
    above, equal = (_ALL << rest) << _ONE, _ONE << rest
    zero = np.zeros_like(rest)
    found[..., 4] = np.where(upper, zero, above)
    found[..., 5] = np.where(upper, above, _ALL)
    found[..., 9] = np.where(upper, zero, equal)
    found[..., 10] = np.where(upper, equal, zero)
    return found


def _sign_tables(mask: Words, bits: Words) -> Shares:
    """Derived fields for the sign of E + mask, under the bit masks."""
    combined = _combining()[(bits & _word(255)).astype(np.intp)]
    flipped = np.where(_bit31(mask)[..., None] == _ONE, _ALL, np.uint64(0))
    return {"tables": _tables(mask), "combined": combined ^ flipped}


def _sign_fields(*shape: int) -> tuple[Field, ...]:
    return Field("tables", (*shape, _TABLES), XOR), Field("combined", (*shape, _COMBINED), XOR)


def _select(words: Words, digit: Words) -> Words:
    """Bit `digit` of each word."""
    return (words >> digit) & _ONE


def _sign_shares(link: Link, party: int, public: Words, shares: Shares) -> Words:
    """Shares (XOR, of one bit) of the sign of public + mask; one round."""
    *low, top = _digits(public)
    upper, rest = top >= _word(64), top & _SIX
    tables = shares["tables"]
    gathered = shares["bits"] & _word(255)
    for j, digit in enumerate(low):
        gathered = gathered ^ (_select(tables[..., j], digit) << _word(j))
        if j:
            gathered = gathered ^ (_select(tables[..., 5 + j], digit) << _word(3 + j))
    gathered = gathered ^ (_select(np.where(upper, tables[..., 10], tables[..., 9]), rest) << _word(7))
    (delta,) = opened(link, Xor(gathered.astype(np.uint8)))
    index = delta.astype(np.uint64)
    words = np.take_along_axis(shares["combined"], (index >> _word(_DIGIT)).astype(np.intp)[..., None], axis=-1)
    sign = _select(words[..., 0], index & _SIX) ^ _select(np.where(upper, tables[..., 5], tables[..., 4]), rest)
    return sign ^ _bit31(public) if party == 0 else sign


def _open_bits(link: Link, share: Words) -> NDArray[np.bool_]:
    """The bits that XOR shares stand for, eight a byte; one round."""
    (packed,) = opened(link, Xor(np.packbits((share & _ONE).astype(bool).reshape(-1))))
    return np.unpackbits(packed, count=share.size).astype(bool).reshape(share.shape)


# ReLU.


@dataclass(frozen=True)
class Relu(Need):
    """For max(x, 0) of `count` numbers: a mask, the tables of its sign, and a bit rho with rho a."""

    kind: ClassVar[str] = "relu"
    count: int

    def masks(self) -> tuple[Field, ...]:
        n = (self.count,)
        return Field("a", n), Field("bits", n, XOR), Field("rho", n, XOR)

    def derived(self) -> tuple[Field, ...]:
        n = (self.count,)
        return *_sign_fields(*n), Field("rho_sum", n, SUM), Field("rho_a", n, SUM)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        rho = masks["rho"] & _ONE
        return {**_sign_tables(masks["a"], masks["bits"]), "rho_sum": rho, "rho_a": rho * masks["a"]}


def relu(x: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """Shares of max(x, 0), for shares of x of any shape; three rounds, 9.1 bytes a number."""
    shares = correlations.take(Relu(x.size))
    flat = x.reshape(-1)
    (public,) = opened(link, flat - shares["a"])
    negative = _sign_shares(link, party, public, shares)
    z = _open_bits(link, negative ^ shares["rho"])
    # The sign bit b is z + rho - 2 z rho, and b x = b (E + a).
    rho, rho_a = shares["rho_sum"], shares["rho_a"]
    bit = np.where(z, -rho, rho)
    masked = np.where(z, shares["a"] - rho_a, rho_a)
    if party == 0:
        bit = bit + z
    return np.asarray((flat - bit * public - masked).reshape(x.shape))


# Labels.


@dataclass(frozen=True)
class Signs(Need):
    """For the sign bit of `count` numbers."""

    kind: ClassVar[str] = "signs"
    count: int

    def masks(self) -> tuple[Field, ...]:
        return Field("a", (self.count,)), Field("bits", (self.count,), XOR)

    def derived(self) -> tuple[Field, ...]:
        return _sign_fields(self.count)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        return _sign_tables(masks["a"], masks["bits"])


def positive(x: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """XOR shares of one bit: whether x > 0; two rounds."""
    shares = correlations.take(Signs(x.size))
    # x > 0 where x - 1 is not negative.
    flat = x.reshape(-1) - _ONE if party == 0 else x.reshape(-1)
    (public,) = opened(link, flat - shares["a"])
    bit = _sign_shares(link, party, public, shares) & _ONE
    return (bit ^ _ONE if party == 0 else bit).reshape(x.shape)


@dataclass(frozen=True)
class Argmax(Need):
    """For the place of the largest of `classes` numbers a row, and nothing else of them.

    One mask a number; each pair's difference is covered by the difference of its masks. u: random non-zero elements of the
    field, one a class, which cover the numbers of lost comparisons.
    """

    kind: ClassVar[str] = "argmax"
    rows: int
    classes: int

    @property
    def pairs(self) -> int:
        return self.classes * (self.classes - 1) // 2

    def masks(self) -> tuple[Field, ...]:
        pairs = (self.rows, self.pairs)
        return (
            Field("a", (self.rows, self.classes)),
            Field("bits", pairs, XOR),
            Field("rho", pairs, XOR),
            Field("drawn", (self.rows, self.classes, 2)),
        )

    def derived(self) -> tuple[Field, ...]:
        shape = (self.rows, self.pairs)
        return (
            *_sign_fields(*shape),
            Field("u", (self.rows, self.classes), MOD),
            Field("u_rho", (*shape, 2), MOD),
        )

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        pairs, rho = _pairs(self.classes), masks["rho"] & _ONE
        first, second = uniform_mod(masks["drawn"][..., 0]), uniform_mod(masks["drawn"][..., 1])
        u = np.where(first > 0, first, np.maximum(second, _ONE))
        difference = masks["a"][:, pairs[0]] - masks["a"][:, pairs[1]]
        return {
            **_sign_tables(difference, masks["bits"]),
            "u": u,
            "u_rho": np.stack([u[:, side] * rho for side in pairs], axis=-1),
        }


@lru_cache(maxsize=64)
def _pairs(classes: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The two classes of every pair, the lower first."""
    found = np.array(list(combinations(range(classes), 2)), dtype=np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def argmax(y: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """Shares mod PRIME (rows, classes) that are zero at the largest y of a row and uniform non-zero elsewhere; three rounds.

    Of equal numbers the first is the largest. Class k's share is of u_k times the comparisons that k lost: a product of a
    non-zero number below PRIME and a uniform non-zero u_k, so uniform and non-zero itself.
    """
    rows, classes = y.shape
    shares = correlations.take(Argmax(rows, classes))
    (public,) = opened(link, y - shares["a"])
    lower, upper = _pairs(classes)
    less = _sign_shares(link, party, public[:, lower] - public[:, upper], shares)
    z = _open_bits(link, less ^ shares["rho"])
    # b = z + (1 - 2z) rho says that the lower class of a pair lost; otherwise the upper did.
    prime, u = _word(PRIME), shares["u"]
    answer = np.zeros_like(u)
    for side, classes_of in enumerate((lower, upper)):
        own, covered = u[:, classes_of], shares["u_rho"][..., side]
        lost = np.where(z, own + (prime - covered), covered)
        if side:
            lost = own + (_word(2 * PRIME) - lost)
        for k in range(classes):
            answer[:, k] += lost[:, classes_of == k].sum(axis=1, dtype=np.uint64)
    return np.asarray(answer % prime)
