"""Protobuf's wire format, as far as it takes to change a message without its schema, also into what no encoder writes.

08 96 01            field 1, varint 150
08 96 81 80 80 00   the same number, its varint longer than need be
0a 03 61 62         field 1, three bytes announced, two there
"""

from __future__ import annotations

from dataclasses import dataclass

VARINT, FIXED64, BYTES, OPEN_GROUP, CLOSE_GROUP, FIXED32 = range(6)


@dataclass(frozen=True)
class Field:
    """One field as it travels. value: of varints and groups the number, else the bytes. length: announced; None: the true one."""

    number: int
    wire: int
    value: int | bytes
    length: int | None = None

    def encode(self) -> bytes:
        tag = varint(self.number << 3 | self.wire)
        if isinstance(self.value, int):
            return tag + (varint(self.value) if self.wire == VARINT else b"")
        if self.wire != BYTES:
            return tag + self.value
        return tag + varint(len(self.value) if self.length is None else self.length) + self.value


def varint(value: int) -> bytes:
    """Base 128, the least significant group first."""
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse(data: bytes) -> list[Field] | None:
    """The fields of a message; None for bytes that are none."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not number:
            return None
        if wire == VARINT:
            value, at = _read_varint(data, at)
            fields.append(Field(number, wire, value))
        elif wire == BYTES:
            length, at = _read_varint(data, at)
            if at < 0 or at + length > len(data):
                return None
            fields.append(Field(number, wire, data[at : at + length]))
            at += length
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            fields.append(Field(number, wire, data[at : at + size]))
            at += size
        else:
            return None
        if at < 0 or at > len(data):
            return None
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends); the end is -1 where there is none."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, -1
