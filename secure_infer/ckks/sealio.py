"""Bytes of SEAL objects: streams built and read here, residues without a detour.

SEAL moves objects through paths only, so they pass through memory files (`memoryfile`). A secret key is never saved at
all, on any platform.

SEAL's body of a ciphertext (little-endian):
    32  parms_id        1  NTT form        24  size, N, primes        8  scale (double)        8  correction factor
    24  header and length of the residue array, then the residues as uint64
    seeded form: only c0's residues, then 16 header, 1 generator type, 64 seed; SEAL expands c1 from the seed
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
import zstandard

from secure_infer.ckks.memoryfile import MemoryFile, file_for
from secure_infer.ckks.residues import Residues
from secure_infer.errors import InternalFault

MAGIC = 0xA15E
HEADER = struct.Struct("<HBBBBHQ")
"""Magic, header size, major and minor version, compression (0 none, 1 zlib, 2 zstd), reserved, total size."""

SEED_BYTES = 64
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
_PLAINTEXT = struct.Struct("<32sQd")
_RESIDUES_AT = _CIPHERTEXT.size + HEADER.size + 8
_BLAKE2XB = 1


def saved(value: Any) -> bytes:
    """The stream that SEAL writes for a public object."""
    with MemoryFile() as file:
        value.save(file.path)
        return file.read()


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    header = HEADER.unpack_from(saved(sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)))
    return header[2], header[3]


def stream(*body: bytes | memoryview) -> bytes:
    """An uncompressed SEAL stream around `body`, whose parts follow each other."""
    size = HEADER.size + sum(memoryview(part).nbytes for part in body)
    return b"".join((HEADER.pack(MAGIC, HEADER.size, *_version(), 0, 0, size), *body))


def _array(residues: Residues) -> tuple[bytes, memoryview]:
    """The stream of an array of residues, in two parts: what comes before them, and their memory."""
    words = np.ascontiguousarray(residues, "<u8")
    head = HEADER.pack(MAGIC, HEADER.size, *_version(), 0, 0, HEADER.size + 8 + words.nbytes)
    return head + struct.pack("<Q", words.size), words.data


def ciphertext(level: Any, residues: Residues, *, ntt: bool = True) -> bytes:
    """The stream of a ciphertext of residues (size, primes, N) at the level with that parms_id."""
    size, primes, degree = residues.shape
    return stream(_CIPHERTEXT.pack(struct.pack("<4Q", *level), ntt, size, degree, primes, 1.0, 1), *_array(residues))


def seeded_ciphertext(level: Any, c0: Residues, seed: bytes) -> bytes:
    """The stream of a fresh ciphertext or public key: c0 (primes, N) in NTT form, c1 to be expanded from the seed."""
    if len(seed) != SEED_BYTES:
        raise InternalFault(f"seed: expected {SEED_BYTES} bytes, got {len(seed)}")
    primes, degree = c0.shape
    fixed = _CIPHERTEXT.pack(struct.pack("<4Q", *level), True, 2, degree, primes, 1.0, 1)
    return stream(fixed, *_array(c0), stream(bytes([_BLAKE2XB]), seed))


def parse_seeded(data: bytes, primes: int, degree: int) -> tuple[Residues, bytes]:
    """(c0 (primes, N), seed) of a seeded stream that this process's SEAL wrote."""
    raw = body(data)
    tail = HEADER.size + 1 + SEED_BYTES
    if len(raw) != _RESIDUES_AT + 8 * primes * degree + tail or raw[-SEED_BYTES - 1] != _BLAKE2XB:
        raise InternalFault("SEAL wrote a seeded stream of an unknown layout; this version supports tenseal 0.3")
    c0 = np.frombuffer(raw, "<u8", primes * degree, _RESIDUES_AT).reshape(primes, degree)
    return c0.astype(np.uint64), raw[-SEED_BYTES:]


def plaintext(level: Any, residues: Residues) -> bytes:
    """The stream of a plaintext of residues (primes, N) in NTT form."""
    return stream(_PLAINTEXT.pack(struct.pack("<4Q", *level), residues.size, 1.0), *_array(residues))


SwitchingKey = Sequence[tuple[Residues, bytes]]
"""One (c0 (all primes, N), seed) a data prime: how SEAL decomposes what it switches."""


def switching_keys(level: Any, keys: Mapping[int, SwitchingKey], places: int) -> bytes:
    """The stream of Galois or relinearisation keys: `keys` by their index among `places`."""
    body = [struct.pack("<4Q", *level), struct.pack("<Q", places)]
    empty = struct.pack("<Q", 0)
    for index in range(places):
        parts = keys.get(index, ())
        body.append(struct.pack("<Q", len(parts)) if parts else empty)
        body.extend(seeded_ciphertext(level, c0, seed) for c0, seed in parts)
    return stream(*body)


def parse_switching_keys(data: bytes, primes: int, degree: int) -> dict[int, SwitchingKey]:
    """The inverse of `switching_keys`, for a seeded stream that this process's SEAL wrote."""
    raw = body(data)
    keys: dict[int, SwitchingKey] = {}
    (places,), at = struct.unpack_from("<Q", raw, 32), 40
    for index in range(places):
        (count,) = struct.unpack_from("<Q", raw, at)
        at += 8
        parts = []
        for _ in range(count):
            size = HEADER.unpack_from(raw, at)[6]
            parts.append(parse_seeded(raw[at : at + size], primes, degree))
            at += size
        if parts:
            keys[index] = parts
    return keys


def load(target: Any, context: Any, data: bytes) -> Any:
    """`target` after SEAL loaded `data`, a stream built here, into it."""
    with file_for(len(data)) as file:
        file.write(data)
        target.load(context, file.path)
    return target


def body(data: bytes) -> bytes:
    """The body of a stream that this process's SEAL wrote."""
    if HEADER.unpack_from(data)[4] == 0:
        return data[HEADER.size :]
    return zstandard.ZstdDecompressor().decompressobj().decompress(data[HEADER.size :])


# SEAL's `save` always compresses, which costs more than a product does. Where the wheel's object layout is the known
# one, residues are copied out of this process's own memory instead. Before that the layout has to agree with `save`, in
# a check that reads through /proc/self/mem, where a wrong address is an error and not a crash.


def _words_by_save(ciphertext: Any, count: int) -> Residues:
    return np.frombuffer(body(saved(ciphertext)), "<u8", count, _RESIDUES_AT).astype(np.uint64)


def _checked_read(address: int, size: int) -> bytes:
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(memory, size, address)
    finally:
        os.close(memory)


class _MemoryReader:
    _VALUE, _DATA = 16, 112  # of the pybind11 instance; of seal::Ciphertext in the wheels of tenseal 0.3

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read

    def __call__(self, ciphertext: Any, count: int) -> Residues:
        value = int.from_bytes(self._read(id(ciphertext) + self._VALUE, 8), sys.byteorder)
        data = int.from_bytes(self._read(value + self._DATA, 8), sys.byteorder)
        return np.frombuffer(self._read(data, 8 * count), np.uint64)


@lru_cache(maxsize=1)
def _reader() -> Callable[[Any, int], Residues]:
    if sys.platform != "linux":
        return _words_by_save
    literal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    literal.set_poly_modulus_degree(1024)
    literal.set_coeff_modulus(sealapi.CoeffModulus.Create(1024, [27]))
    context = sealapi.SEALContext(literal, True, sealapi.SEC_LEVEL_TYPE.TC128)
    careful = _MemoryReader(_checked_read)
    for size in (2, 3):
        residues = np.random.default_rng(size).integers(0, 2**26, (size, 1, 1024), np.uint64)
        sample = load(sealapi.Ciphertext(context), context, ciphertext(context.first_parms_id(), residues))
        try:
            if not np.array_equal(careful(sample, residues.size), _words_by_save(sample, residues.size)):
                return _words_by_save
        except (OSError, ValueError, OverflowError):
            return _words_by_save
    return _MemoryReader(ctypes.string_at)


def words(ciphertext: Any, count: int) -> Residues:
    """The first `count` words of a ciphertext's residues, uint64 (count,)."""
    return _reader()(ciphertext, count)
