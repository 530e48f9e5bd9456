"""Correlated randomness: what a dealer makes for two parties ahead of a request, and each party uses once.

A `Need` is one piece: fields that are masks, each party's share drawn from its own seed, and fields that are functions of
the masks, party 1's share drawn from its seed and party 0's sent as a correction. A `Recipe` is the sequence of needs of
one request; a `Bundle` is one party's part of one dealing: an id, a seed of 32 bytes and, at party 0, the corrections.

Worked example, `Square(1)` over Z_16 instead of Z_2^64: seeds give a_0 = 5, a_1 = 14 (so a = 3) and aa_1 = 12;
the dealer computes aa = 9 and sends party 0 the correction 9 - 12 = 13.

Nothing here depends on inputs, results or, fixed masks of shared weights apart, on the model: a dealer learns shapes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from secure_infer.errors import CorrelationMisuse, MalformedRequest, ResourceExhausted
from secure_infer.mpc.ring import Matrix, Words
from secure_infer.mpc.streams import KeyedStream, fresh_key

ID_BYTES = 16
MAX_WORDS = 1 << 24
"""Words of one bundle, expanded: 128 MiB. Larger requests are sent in parts. Dealing takes about six times that for a moment."""

PRIME = (1 << 31) - 1
"""The field of `MOD` shares; products of two elements fit a word."""

Join = Callable[[Words, Words], Words]
Shares = dict[str, Words]


def add(one: Words, other: Words) -> Words:
    return one + other


def subtract(one: Words, other: Words) -> Words:
    return one - other


def _xor(one: Words, other: Words) -> Words:
    return one ^ other


def _add_mod(one: Words, other: Words) -> Words:
    return np.asarray((one + other) % np.uint64(PRIME))


def _subtract_mod(one: Words, other: Words) -> Words:
    return np.asarray((one + (np.uint64(PRIME) - other)) % np.uint64(PRIME))


@dataclass(frozen=True)
class Joining:
    """How two shares make a value, and a value less a share the other share."""

    name: str
    join: Join
    part: Join
    modulus: int = 1 << 64

    def masks(self, words: Words) -> Words:
        """Uniform shares from uniform words."""
        if self.modulus == 1 << 64:
            return words
        return uniform_mod(words)


SUM = Joining("sum", add, subtract)
XOR = Joining("xor", _xor, _xor)
MOD = Joining("mod", _add_mod, _subtract_mod, PRIME)


def uniform_mod(words: Words) -> Words:
    """Elements below PRIME, uniform but for 2^-62: 31 bits of each word, or its next 31 where these are PRIME."""
    mask = np.uint64(PRIME)
    low, high = words & mask, (words >> np.uint64(31)) & mask
    return np.asarray(np.where(low == mask, np.where(high == mask, np.uint64(0), high), low))


@dataclass(frozen=True)
class Field:
    """An array of shared words."""

    name: str
    shape: tuple[int, ...]
    joining: Joining = SUM

    @property
    def words(self) -> int:
        return math.prod(self.shape)


KINDS: dict[str, type[Need]] = {}


@dataclass(frozen=True)
class Need:
    """One piece of correlated randomness. Subclasses name their sizes as integer fields and are listed in KINDS."""

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.kind:
            KINDS[cls.kind] = cls

    def masks(self) -> tuple[Field, ...]:
        """Fields drawn freely."""
        raise NotImplementedError

    def derived(self) -> tuple[Field, ...]:
        """Fields that follow from the masks."""
        raise NotImplementedError

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        """The derived fields' values, from the masks' values and the fixed masks of shared weights by tensor."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_dict(entry: Any) -> Need:
        """Raises MalformedRequest for anything but a known kind with its sizes, each from 1 to MAX_WORDS (tensors from 0)."""
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise MalformedRequest(f"correlations: expected one of {', '.join(sorted(KINDS))}")
        cls = KINDS[kind]
        names = [field.name for field in fields(cls)]
        sizes = {name: value for name, value in entry.items() if name != "kind"}
        if sorted(sizes) != sorted(names):
            raise MalformedRequest(f"correlations of kind {cls.kind}: expected {', '.join(names)}")
        for name, value in sizes.items():
            least = 0 if name == "tensor" else 1
            if type(value) is not int or not least <= value <= MAX_WORDS:
                raise MalformedRequest(f"correlations of kind {cls.kind}: {name} must be from {least} to {MAX_WORDS}")
        return cls(**sizes)


@dataclass(frozen=True)
class Square(Need):
    """a and a², elementwise."""

    kind: ClassVar[str] = "square"
    count: int

    def masks(self) -> tuple[Field, ...]:
        return (Field("a", (self.count,)),)

    def derived(self) -> tuple[Field, ...]:
        return (Field("aa", (self.count,)),)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        return {"aa": masks["a"] * masks["a"]}


@dataclass(frozen=True)
class Product(Need):
    """a, b and a b, elementwise (Beaver, CRYPTO 1991)."""

    kind: ClassVar[str] = "product"
    count: int

    def masks(self) -> tuple[Field, ...]:
        return (Field("a", (self.count,)), Field("b", (self.count,)))

    def derived(self) -> tuple[Field, ...]:
        return (Field("ab", (self.count,)),)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        return {"ab": masks["a"] * masks["b"]}


@dataclass(frozen=True)
class WeightProduct(Need):
    """a (rows, inputs) and a b, where b (inputs, outputs) is the fixed mask of a weight tensor."""

    kind: ClassVar[str] = "weights"
    tensor: int
    rows: int
    inputs: int
    outputs: int

    def masks(self) -> tuple[Field, ...]:
        return (Field("a", (self.rows, self.inputs)),)

    def derived(self) -> tuple[Field, ...]:
        return (Field("ab", (self.rows, self.outputs)),)

    def derive(self, masks: Shares, fixed: Mapping[int, Matrix]) -> Shares:
        if self.tensor not in fixed or fixed[self.tensor].shape != (self.inputs, self.outputs):
            raise CorrelationMisuse(f"weight mask {self.tensor}: expected one of shape {(self.inputs, self.outputs)}")
        return {"ab": fixed[self.tensor].apply(masks["a"])}


@dataclass(frozen=True)
class Recipe:
    """The needs of one request, in order, for a number of rows and one program: its digest, hex, or where weights are shared
    one of program and model, since masks of weights are kept by it (`Program.recipe`)."""

    program: str
    rows: int
    needs: tuple[Need, ...]

    def as_json(self) -> bytes:
        entry = {"program": self.program, "rows": self.rows, "needs": [need.as_dict() for need in self.needs]}
        return json.dumps(entry, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Recipe:
        """Raises MalformedRequest, or ResourceExhausted for one too large to deal."""
        try:
            entry = json.loads(data)
            program, rows, needs = entry["program"], entry["rows"], list(entry["needs"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise MalformedRequest("recipe: expected JSON with program, rows and needs") from None
        if not isinstance(program, str) or type(rows) is not int or not 1 <= rows <= MAX_WORDS:
            raise MalformedRequest("recipe: expected a program's digest and a number of rows")
        recipe = cls(program, rows, tuple(Need.from_dict(need) for need in needs))
        if recipe.words(1) > MAX_WORDS:
            raise ResourceExhausted(
                f"recipe: {rows} rows take {recipe.words(1)} words, at most {MAX_WORDS} are dealt at once; send fewer rows"
            )
        return recipe

    @cached_property
    def digest(self) -> bytes:
        """SHA-256."""
        return hashlib.sha256(self.as_json()).digest()

    def words(self, party: int) -> int:
        """Words that this party's seed stands for."""
        own = sum(f.words for need in self.needs for f in need.masks())
        return own + (self.correction_words if party else 0)

    @cached_property
    def correction_words(self) -> int:
        return sum(f.words for need in self.needs for f in need.derived())

    def tensors(self) -> dict[int, tuple[int, int]]:
        """Shapes (inputs, outputs) of the fixed weight masks that are referred to."""
        return {n.tensor: (n.inputs, n.outputs) for n in self.needs if isinstance(n, WeightProduct)}


@dataclass(frozen=True)
class Bundle:
    """One party's part of one dealing. id: the same at both parties. corrections: of party 0; empty at party 1."""

    id: bytes
    recipe: bytes
    seed: bytes
    corrections: bytes


def _expanded(seed: bytes, recipe: Recipe, party: int) -> list[Shares]:
    """The shares that a seed stands for: masks of every need, and at party 1 what follows from them."""
    stream = KeyedStream(seed).words(recipe.words(party))
    found, start = [], 0
    for need in recipe.needs:
        shares: Shares = {}
        for field in (*need.masks(), *(need.derived() if party else ())):
            words = stream[start : start + field.words].reshape(field.shape)
            shares[field.name] = field.joining.masks(words)
            start += field.words
        found.append(shares)
    return found


def deal(recipe: Recipe, fixed: Mapping[int, Matrix] | None = None) -> tuple[Bundle, Bundle]:
    """One dealing for parties 0 and 1, from fresh seeds. fixed: the weight masks by tensor.

    Both bundles belong sent and forgotten: whoever has both has the masks.
    """
    seeds, identity = (fresh_key(), fresh_key()), os.urandom(ID_BYTES)
    first, second = (_expanded(seed, recipe, party) for party, seed in enumerate(seeds))
    corrections = []
    for need, own, other in zip(recipe.needs, first, second, strict=True):
        masks = {f.name: f.joining.join(own[f.name], other[f.name]) for f in need.masks()}
        values = need.derive(masks, fixed or {})
        corrections += [f.joining.part(values[f.name], other[f.name]).tobytes() for f in need.derived()]
    return (
        Bundle(identity, recipe.digest, seeds[0], b"".join(corrections)),
        Bundle(identity, recipe.digest, seeds[1], b""),
    )


class Correlations:
    """A bundle at work: each need is handed out once, in the recipe's order."""

    def __init__(self, bundle: Bundle, recipe: Recipe, party: int) -> None:
        """Raises CorrelationMisuse when the bundle was made for another recipe or another party."""
        expected = 0 if party else 8 * recipe.correction_words
        if bundle.recipe != recipe.digest or len(bundle.corrections) != expected:
            raise CorrelationMisuse("correlations: made for another recipe or the other party")
        self.id = bundle.id
        self._needs = recipe.needs
        self._shares = _expanded(bundle.seed, recipe, party)
        if party == 0:
            self._correct(np.frombuffer(bundle.corrections, dtype=np.uint64))
        self._next = 0

    def _correct(self, words: Words) -> None:
        start = 0
        for need, shares in zip(self._needs, self._shares, strict=True):
            for field in need.derived():
                shares[field.name] = words[start : start + field.words].reshape(field.shape)
                start += field.words

    def take(self, need: Need) -> Shares:
        """This party's shares for `need`, which must be the recipe's next; raises CorrelationMisuse."""
        if self._next >= len(self._needs) or self._needs[self._next] != need:
            raise CorrelationMisuse(f"correlations: {need.kind} was asked for out of the recipe's order")
        shares, self._shares[self._next] = self._shares[self._next], {}
        self._next += 1
        return shares

    def done(self) -> None:
        """Raises CorrelationMisuse when something is left."""
        if self._next != len(self._needs):
            raise CorrelationMisuse(
                f"correlations: {len(self._needs) - self._next} of {len(self._needs)} were left over"
            )
