"""Bytes of SEAL objects: streams built and read here, the memory file they pass through, residues without a detour.

SEAL moves objects through paths only, so a memory file serves; where a platform has none, a temporary file does. Only
public objects pass through it. A secret key is never saved at all, on any platform.

SEAL's body of a ciphertext (little-endian):
    32  parms_id        1  NTT form        24  size, N, primes        8  scale (double)        8  correction factor
    24  header and length of the residue array, then the residues as uint64
    seeded form: only c0's residues, then 16 header, 1 generator type, 64 seed; SEAL expands c1 from the seed
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
import zstandard

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


class MemoryFile:
    """A file in memory (Linux), else a temporary file that is removed on close."""

    def __init__(self, in_memory: bool = sys.platform == "linux") -> None:
        self._named = not in_memory
        if in_memory:
            self._fd = os.memfd_create("secure-infer")
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="secure-infer-")

    def write(self, data: bytes) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.truncate(self._fd, 0)
        os.write(self._fd, data)

    def read(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, os.fstat(self._fd).st_size)

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._named:
            Path(self.path).unlink(missing_ok=True)


def saved(value: Any) -> bytes:
    """The stream that SEAL writes for a public object."""
    with MemoryFile() as file:
        value.save(file.path)
        return file.read()


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    header = HEADER.unpack_from(saved(sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)))
    return header[2], header[3]


def stream(body: bytes) -> bytes:
    """An uncompressed SEAL stream around `body`."""
    return HEADER.pack(MAGIC, HEADER.size, *_version(), 0, 0, HEADER.size + len(body)) + body


def _array(residues: Residues) -> bytes:
    return stream(struct.pack("<Q", residues.size) + np.ascontiguousarray(residues, "<u8").tobytes())


def ciphertext(level: Any, residues: Residues, *, ntt: bool = True) -> bytes:
    """The stream of a ciphertext of residues (size, primes, N) at the level with that parms_id."""
    size, primes, degree = residues.shape
    return stream(_CIPHERTEXT.pack(struct.pack("<4Q", *level), ntt, size, degree, primes, 1.0, 1) + _array(residues))


def seeded_ciphertext(level: Any, c0: Residues, seed: bytes) -> bytes:
    """The stream of a fresh ciphertext or public key: c0 (primes, N) in NTT form, c1 to be expanded from the seed."""
    if len(seed) != SEED_BYTES:
        raise InternalFault(f"seed: expected {SEED_BYTES} bytes, got {len(seed)}")
    primes, degree = c0.shape
    fixed = _CIPHERTEXT.pack(struct.pack("<4Q", *level), True, 2, degree, primes, 1.0, 1)
    return stream(fixed + _array(c0) + stream(bytes([_BLAKE2XB]) + seed))


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
    return stream(_PLAINTEXT.pack(struct.pack("<4Q", *level), residues.size, 1.0) + _array(residues))


def load(target: Any, context: Any, data: bytes) -> Any:
    """`target` after SEAL loaded `data`, a stream built here, into it."""
    with MemoryFile() as file:
        file.write(data)
        target.load(context, file.path)
    return target


def body(data: bytes) -> bytes:
    """The body of a stream that this process's SEAL wrote."""
    if HEADER.unpack_from(data)[4] == 0:
        return data[HEADER.size :]
    return zstandard.ZstdDecompressor().decompressobj().decompress(data[HEADER.size :])


# SEAL's `save` always compresses, which costs more than a product does. Where the wheel's object layout is the known
# one, residues are copied out of this process's own memory instead. The copy goes through /proc/self/mem, so that a
# wrong layout is an error and not a crash, and it must agree with `save` before it is used.


def _words_by_save(ciphertext: Any, count: int) -> Residues:
    return np.frombuffer(body(saved(ciphertext)), "<u8", count, _RESIDUES_AT).astype(np.uint64)


class _MemoryReader:
    _VALUE, _DATA = 16, 112  # of the pybind11 instance; of seal::Ciphertext in the wheels of tenseal 0.3

    def __init__(self) -> None:
        self._process, self._memory = 0, -1

    def __call__(self, ciphertext: Any, count: int) -> Residues:
        if self._process != os.getpid():  # a forked child's inherited descriptor would read its parent
            self._memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
            self._process = os.getpid()
        (value,) = struct.unpack("<Q", os.pread(self._memory, 8, id(ciphertext) + self._VALUE))
        (data,) = struct.unpack("<Q", os.pread(self._memory, 8, value + self._DATA))
        raw = os.pread(self._memory, 8 * count, data)
        if len(raw) != 8 * count:
            raise OSError(f"expected {8 * count} bytes, got {len(raw)}")
        return np.frombuffer(raw, np.uint64)


@lru_cache(maxsize=1)
def _reader() -> Any:
    if sys.platform != "linux":
        return _words_by_save
    literal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    literal.set_poly_modulus_degree(1024)
    literal.set_coeff_modulus(sealapi.CoeffModulus.Create(1024, [27]))
    context = sealapi.SEALContext(literal, True, sealapi.SEC_LEVEL_TYPE.TC128)
    fast = _MemoryReader()
    for size in (2, 3):
        residues = np.random.default_rng(size).integers(0, 2**26, (size, 1, 1024), np.uint64)
        sample = load(sealapi.Ciphertext(context), context, ciphertext(context.first_parms_id(), residues))
        try:
            if not np.array_equal(fast(sample, residues.size), _words_by_save(sample, residues.size)):
                return _words_by_save
        except OSError:
            return _words_by_save
    return fast


def words(ciphertext: Any, count: int) -> Residues:
    """The first `count` words of a ciphertext's residues, uint64 (count,)."""
    found: Residues = _reader()(ciphertext, count)
    return found
