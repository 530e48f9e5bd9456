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

_WORDS = [np.dtype(name) for name in ("u1", "<u2", "<u4", "<u8")]


def packed_width(bits: int) -> int:
    """Bits that a residue below 2**bits occupies when packed."""
    return -(-bits // 4) * 4


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` (even) packed residues below 2**bits."""
    return count * packed_width(bits) // 8


def pack(values: Residues, bits: int) -> bytes:
    """Pack a flat array of even length, each value below 2**bits."""
    width = packed_width(bits)
    first, second = values[0::2], values[1::2]
    # A record of two values is the beginning of one little-endian word or two. NumPy shifts by 64 bits to zero.
    words = np.empty((len(first), 1 + (width > 32)), "<u8")
    np.left_shift(second, np.uint64(width), out=words[:, 0])
    words[:, 0] |= first
    if width > 32:
        np.right_shift(second, np.uint64(64 - width), out=words[:, 1])
    return np.ndarray(len(first), f"V{width // 4}", words, 0, words.strides[:1]).tobytes()


def unpack(data: bytes | memoryview, count: int, bits: int, what: str) -> Residues:
    """`count` (even) values from `data`; raises MalformedRequest, naming `what`, when the length is not the exact one."""
    values = np.empty(count, np.uint64)
    _unpack_into(values, data, bits, what)
    return values


def _unpack_into(values: Residues, data: bytes | memoryview, bits: int, what: str) -> None:
    expected = packed_bytes(len(values), bits)
    if len(data) != expected:
        raise MalformedRequest(f"{what}: expected {expected} bytes, got {len(data)}")
    width = packed_width(bits)
    # A record of two values is read as its first and its last word, which overlap: the word is the least that holds a
    # value, so of the three bytes of a record of width 12 bytes 0 and 1, and bytes 1 and 2.
    word = next(kind for kind in _WORDS if 8 * kind.itemsize >= width)
    record, count = width // 4, len(values) // 2
    first = np.ndarray(count, word, data, 0, (record,)).astype(np.uint64)
    second = np.ndarray(count, word, data, record - word.itemsize, (record,)).astype(np.uint64)
    first &= np.uint64((1 << width) - 1)
    second >>= np.uint64(8 * word.itemsize - width)
    values[0::2], values[1::2] = first, second


def pack_residues(residues: Residues, primes: Sequence[int]) -> bytes:
    """(primes, N) residues to bytes, each row at its own prime's width."""
    return b"".join(pack(row, prime.bit_length()) for row, prime in zip(residues, primes, strict=True))


def residue_bytes(degree: int, primes: Sequence[int]) -> int:
    """Bytes of `pack_residues`."""
    return sum(packed_bytes(degree, prime.bit_length()) for prime in primes)


def unpack_residues(data: bytes | memoryview, degree: int, primes: Sequence[int], what: str) -> Residues:
    """(primes, N) residues from foreign bytes; raises MalformedRequest on a wrong length or a residue >= its prime."""
    expected = residue_bytes(degree, primes)
    if len(data) != expected:
        raise MalformedRequest(f"{what}: expected {expected} bytes for these parameters, got {len(data)}")
    rows, start, view = np.empty((len(primes), degree), np.uint64), 0, memoryview(data)
    for row, prime in zip(rows, primes, strict=True):
        stop = start + packed_bytes(degree, prime.bit_length())
        _unpack_into(row, view[start:stop], prime.bit_length(), what)
        start = stop
        if int(row.max()) >= prime:
            raise MalformedRequest(f"{what}: holds residues that are not below their prime")
    return rows


def reduce(values: NDArray[np.int64] | NDArray[np.float64], primes: Sequence[int]) -> Residues:
    """Signed integer polynomials (..., N) as residues (..., primes, N).

    Floating-point values are integers too: of 53 bits times a power of two where they exceed 2^53.
    """
    if values.dtype.kind == "f":
        return _reduce_float(values.astype(np.float64, copy=False), primes)
    whole = values.astype(np.int64, copy=False)
    largest = max(int(whole.max(initial=0)), -int(whole.min(initial=0)))
    rows = []
    for prime in primes:
        small = whole if largest < prime else np.mod(whole, np.int64(prime))
        rows.append((small + (small >> 63 & prime)).view(np.uint64))  # the shift gives -1 for negative values, else 0
    return np.stack(rows, axis=-2)


def _reduce_float(values: NDArray[np.float64], primes: Sequence[int]) -> Residues:
    if np.abs(values).max(initial=0.0) < 2.0**62:
        return reduce(values.astype(np.int64), primes)
    # Python's integers: this happens once a plaintext, when a plan is compiled.
    integers = [int(value) for value in values.ravel()]
    rows = [np.array([value % prime for value in integers], np.uint64).reshape(values.shape) for prime in primes]
    return np.stack(rows, axis=-2)


def add(a: Residues, b: Residues, primes: Sequence[int]) -> Residues:
    """(a + b) mod each prime, for residues (..., primes, N); primes of at most 63 bits."""
    modulus = np.array(primes, np.uint64)[:, None]
    total = a + b
    # Where nothing has to be subtracted the difference wraps around, and is the larger of the two.
    found: Residues = np.minimum(total, total - modulus)
    return found


def switch_modulus(parts: Sequence[Residues], modulus: int, bits: int) -> Residues:
    """Flat arrays modulo `modulus` (at most 63 bits), joined, modulo 2**bits (at most 52): round(v · 2**bits / modulus)."""
    scaled = np.concatenate([part.view(np.int64) for part in parts], dtype=np.float64)
    scaled *= 2.0**bits / modulus
    scaled += (
        2.0**52
    )  # a float there has no fraction: this rounds, ties to even, and leaves the integer in the low bits
    switched = scaled.view(np.uint64)
    switched &= np.uint64((1 << bits) - 1)
    return switched


def centred(value: int, modulus: int) -> int:
    """The representative of `value` in (-modulus/2, modulus/2]."""
    value %= modulus
    return value - modulus if value > modulus // 2 else value
