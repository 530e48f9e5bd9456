"""Polynomials as residues: uint64 arrays (..., primes, N), their packing to bytes, and the checks on foreign bytes.

Packing keeps `width` bits a residue, rounded up to a multiple of four, so that two residues fill whole bytes:

    width 12, residues a = 0xABC, b = 0xDEF, little-endian  ->  BC  FA  DE
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import MalformedRequest

Residues = NDArray[np.uint64]


def packed_width(bits: int) -> int:
    """Bits that a residue below 2**bits occupies when packed."""
    return -(-bits // 4) * 4


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` (even) packed residues below 2**bits."""
    return count * packed_width(bits) // 8


def pack(values: Residues, bits: int) -> bytes:
    """Pack a flat array of even length, each value below 2**bits."""
    width = packed_width(bits)
    whole, nibble = divmod(width, 8)
    as_bytes = values.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)
    if not nibble:
        return np.ascontiguousarray(as_bytes[:, :whole]).tobytes()
    first, second = values[0::2], values[1::2]
    # The odd value moves up by four bits, and the even value's top nibble fills the gap.
    joined = (second << np.uint64(4)) | (first >> np.uint64(8 * whole))
    out = np.empty((len(first), 2 * whole + 1), np.uint8)
    out[:, :whole] = as_bytes[0::2, :whole]
    out[:, whole:] = joined.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, : whole + 1]
    return out.tobytes()


def unpack(data: bytes, count: int, bits: int, what: str) -> Residues:
    """`count` values from `data`; raises MalformedRequest, naming `what`, when the length is not the exact one."""
    expected = packed_bytes(count, bits)
    if len(data) != expected:
        raise MalformedRequest(f"{what}: expected {expected} bytes, got {len(data)}")
    whole, nibble = divmod(packed_width(bits), 8)
    raw = np.frombuffer(data, np.uint8)
    if not nibble:
        out = np.zeros((count, 8), np.uint8)
        out[:, :whole] = raw.reshape(count, whole)
        return out.view("<u8").reshape(count).astype(np.uint64, copy=False)
    raw = raw.reshape(count // 2, 2 * whole + 1)
    out = np.zeros((count, 8), np.uint8)
    out[0::2, :whole] = raw[:, :whole]
    out[1::2, : whole + 1] = raw[:, whole:]
    values = out.view("<u8").reshape(count).astype(np.uint64, copy=False)
    values[0::2] |= (values[1::2] & np.uint64(15)) << np.uint64(8 * whole)
    values[1::2] >>= np.uint64(4)
    return values


def pack_residues(residues: Residues, primes: Sequence[int]) -> bytes:
    """(primes, N) residues to bytes, each row at its own prime's width."""
    return b"".join(pack(row, prime.bit_length()) for row, prime in zip(residues, primes, strict=True))


def residue_bytes(degree: int, primes: Sequence[int]) -> int:
    """Bytes of `pack_residues`."""
    return sum(packed_bytes(degree, prime.bit_length()) for prime in primes)


def unpack_residues(data: bytes, degree: int, primes: Sequence[int], what: str) -> Residues:
    """(primes, N) residues from foreign bytes; raises MalformedRequest on a wrong length or a residue >= its prime."""
    expected = residue_bytes(degree, primes)
    if len(data) != expected:
        raise MalformedRequest(f"{what}: expected {expected} bytes for these parameters, got {len(data)}")
    rows, start = np.empty((len(primes), degree), np.uint64), 0
    for row, prime in enumerate(primes):
        stop = start + packed_bytes(degree, prime.bit_length())
        rows[row] = unpack(data[start:stop], degree, prime.bit_length(), what)
        start = stop
        if rows[row].max() >= prime:
            raise MalformedRequest(f"{what}: holds residues that are not below their prime")
    return rows


def reduce(values: NDArray[np.int64], primes: Sequence[int]) -> Residues:
    """Signed integer polynomials (..., N) as residues (..., primes, N)."""
    largest = int(np.abs(values).max(initial=0))
    rows = []
    for prime in primes:
        small = values if largest < prime else np.mod(values, np.int64(prime))
        rows.append(np.where(small < 0, small + np.int64(prime), small).view(np.uint64))
    return np.stack(rows, axis=-2)


def add(a: Residues, b: Residues, primes: Sequence[int]) -> Residues:
    """(a + b) mod each prime, for residues (..., primes, N); primes of at most 63 bits."""
    modulus = np.array(primes, np.uint64)[:, None]
    total = a + b
    return np.where(total >= modulus, total - modulus, total)


def centred(value: int, modulus: int) -> int:
    """The representative of `value` in (-modulus/2, modulus/2]."""
    value %= modulus
    return value - modulus if value > modulus // 2 else value
