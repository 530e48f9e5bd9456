"""Hostile bytes out of valid ones: protobuf messages changed field by field, and any bytes changed blindly.

Every change is a function of the `random.Random` that is given. A message is taken apart without its schema (`wireformat`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from secure_infer_benchmarks.stress.wireformat import BYTES, CLOSE_GROUP, OPEN_GROUP, VARINT, Field, parse

MOST_BYTES = 8 << 20
"""No mutation makes a message longer; servers take less."""

INTERESTING = [
    *(0, 1, 2, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1),
]
STRINGS = [
    *(b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"../../etc/passwd", b"%s%n", b"a" * 70, "‮é\U0001f4a9".encode()),
    *(b"\n", b"\r\n", b'"', b"{}", b"small\0", b"SMALL", b" small", b"/dev/stdin", b"' OR 1=1 --", b"x" * 5000),
]


@dataclass(frozen=True)
class Material:
    """What is put into messages besides noise. digests: of 32 bytes, others' and one's own. blobs: what looks like ciphertexts,
    keys or secret keys. messages: to splice with. canary: bytes that must never be seen again."""

    digests: Sequence[bytes] = ()
    blobs: Sequence[bytes] = ()
    messages: Sequence[bytes] = ()
    canary: bytes = b""


def mutated(rng: Random, message: bytes, material: Material, depth: int = 0) -> bytes:
    """A message with some of its fields changed; as `noisy` where it has none, and now and then in any case."""
    if depth == 0 and rng.random() < 0.15:
        return noisy(rng, message, material)
    fields = parse(message)
    if not fields:
        return noisy(rng, message, material)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not fields:
            break
        at = rng.randrange(len(fields))
        chosen = fields[at]
        nested = isinstance(chosen.value, bytes) and len(chosen.value) > 1 and depth < 4 and rng.random() < 0.5
        if nested and isinstance(chosen.value, bytes) and parse(chosen.value):
            fields[at] = replace(chosen, value=mutated(rng, chosen.value, material, depth + 1))
        else:
            rng.choice(_CHANGES)(rng, fields, at, material)
    return b"".join(f.encode() for f in fields)[:MOST_BYTES]


def noisy(rng: Random, data: bytes, material: Material) -> bytes:
    """Bytes changed blindly: flipped, cut, lengthened, spliced, or replaced."""
    return rng.choice(_NOISES)(rng, data, material)[:MOST_BYTES]


# Of fields.

_Change = Callable[[Random, list[Field], int, Material], None]


def _drop(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    del fields[at]


def _repeat(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    size = len(fields[at].encode())
    fields[at:at] = [fields[at]] * min(rng.choice((1, 2, 16, 65, 1000, 20_000)), 1 + (1 << 20) // size)


def _swap(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    other = rng.randrange(len(fields))
    fields[at], fields[other] = fields[other], fields[at]


def _swap_values(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    other = rng.randrange(len(fields))
    one, two = fields[at], fields[other]
    fields[at], fields[other] = replace(two, number=one.number), replace(one, number=two.number)


def _renumber(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    number = fields[at].number
    fields[at] = replace(
        fields[at], number=rng.choice((number + 1, max(1, number - 1), rng.randrange(1, 20), 0, 536870911))
    )


def _retype(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    fields[at] = replace(fields[at], wire=rng.randrange(8))


def _number(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(rng.randrange(1, 65))
    if isinstance(fields[at].value, int):
        fields[at] = replace(fields[at], value=value)
    else:
        fields.append(Field(rng.randrange(1, 12), VARINT, value))


def _resize(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    value = fields[at].value
    if isinstance(value, bytes):
        cut = value[: rng.randrange(len(value) + 1)]
        grown = value + rng.randbytes(rng.choice((1, 2, 64, 1000)))
        fields[at] = replace(fields[at], value=rng.choice((cut, grown, b"", value[1:], value[:-1], value + value)))


def _scramble(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    value = fields[at].value
    if isinstance(value, bytes):
        same = rng.randbytes(len(value))
        filled = bytes([rng.choice((0, 0xFF, 0x7F, 0x80, 1))]) * len(value)
        fields[at] = replace(fields[at], value=rng.choice((same, filled, _flipped(rng, value, material))))


def _announce(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    value = fields[at].value
    if isinstance(value, bytes):
        length = rng.choice((len(value) + 1, max(0, len(value) - 1), rng.choice(INTERESTING)))
        fields[at] = replace(fields[at], wire=BYTES, length=length)


def _digest(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    short = [i for i, f in enumerate(fields) if isinstance(f.value, bytes) and len(f.value) in (16, 32)] or [at]
    at = rng.choice(short)
    if material.digests and isinstance(fields[at].value, bytes):
        fields[at] = replace(fields[at], value=rng.choice(material.digests))


def _blob(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    if material.blobs and isinstance(fields[at].value, bytes):
        fields[at] = replace(fields[at], value=rng.choice(material.blobs))


def _string(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    if isinstance(fields[at].value, bytes):
        fields[at] = replace(fields[at], value=rng.choice(STRINGS))


def _plant(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    """The canary, where content belongs: names are short, and are said back to whoever sent them."""
    long = [
        i for i, f in enumerate(fields) if isinstance(f.value, bytes) and len(f.value) > 64 and not f.value.isascii()
    ]
    if long:
        at = rng.choice(long)
        fields[at] = replace(fields[at], value=_planted(rng, bytes(fields[at].value), material))


def _group(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    number, depth = rng.randrange(1, 20), rng.choice((1, 2, 99, 101, 1000))
    groups = [Field(number, OPEN_GROUP, 0)] * depth + [Field(number, CLOSE_GROUP, 0)] * (depth - rng.randrange(2))
    fields[at:at] = groups


def _nest(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    value = fields[at].encode()
    for _ in range(rng.choice((1, 5, 120))):
        value = Field(fields[at].number, BYTES, value).encode()
    fields[at] = Field(fields[at].number, BYTES, value)


def _unknown(rng: Random, fields: list[Field], at: int, material: Material) -> None:
    fields.insert(at, Field(rng.randrange(20, 1000), BYTES, rng.randbytes(rng.choice((0, 10, 4000)))))


_CHANGES: Sequence[_Change] = (
    *(
        _drop,
        _repeat,
        _swap,
        _swap_values,
        _renumber,
        _retype,
        _number,
        _number,
        _resize,
        _resize,
        _scramble,
        _scramble,
    ),
    *(_announce, _digest, _digest, _blob, _blob, _string, _plant, _plant, _group, _nest, _unknown),
)


# Of bytes.


def _flipped(rng: Random, data: bytes, material: Material) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: Random, data: bytes, material: Material) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _lengthened(rng: Random, data: bytes, material: Material) -> bytes:
    return data + rng.randbytes(rng.choice((1, 3, 100)))


def _spliced(rng: Random, data: bytes, material: Material) -> bytes:
    other = rng.choice(material.messages) if material.messages else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _joined(rng: Random, data: bytes, material: Material) -> bytes:
    """Two messages in one: repeated fields add up, of others the last one holds."""
    return data + (rng.choice(material.messages) if material.messages else data)


def _random(rng: Random, data: bytes, material: Material) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 7, 100, len(data))))


def _overwritten(rng: Random, data: bytes, material: Material) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 17)) + data[at + rng.randrange(17) :]


def _planted(rng: Random, data: bytes, material: Material) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + material.canary + data[at + len(material.canary) :]


_NOISES = (_flipped, _flipped, _cut, _lengthened, _spliced, _joined, _random, _overwritten, _planted)
