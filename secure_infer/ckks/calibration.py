"""Measures this machine's unit costs, and keeps them in the user's cache directory.

Every step is timed once a round, rounds follow one another, and the lower quartile over rounds counts: a busy moment
slows all steps of a few rounds and falls out. Time is the processor time of this thread, which leaves out what other
programs take. No secret key is needed: SEAL's time does not depend on values, so keys and ciphertexts are arbitrary
residues. Nor is one used for the client's encryption: it is timed as the public operations it consists of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from secure_infer.ckks import seal, sealio
from secure_infer.ckks.costs import MAX_JSON_CHARACTERS, Operation, Step, UnitCosts
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, MAX_PRIME_BITS
from secure_infer.ckks.residues import Residues, add, pack, unpack
from secure_infer.errors import PlanRefused

POINTS = ((2048, 1), (4096, 1), (4096, 3), (8192, 1), (8192, 2), (8192, 4), (16384, 1), (16384, 3))
"""(N, data primes) that are measured."""

ROUNDS = 9
MAX_DRIFT = 1.15
"""A calibration with more is repeated once; when that one has more too, the better one is used but not kept."""

_PACKED = 1 << 14
_REDUCED = 1 << 18  # beyond the nearer caches, as the matrices of a batch are
_GEMM = (256, 384, 1024)
_LIMB = 30
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # Windows counts the latter in 16 ms steps


@dataclass(frozen=True)
class Calibration:
    """Unit costs and how they came about.

    load_average: of the machine in the minute before, where the system tells. drift: the middle round's time as a
    multiple of the fastest's, each the median over all steps; large where most of the time was busy.
    """

    costs: UnitCosts
    load_average: float | None
    drift: float

    @property
    def steady(self) -> bool:
        return self.drift <= MAX_DRIFT


@dataclass(frozen=True)
class _Case:
    """One timed step: `run` on what `prepare` made, which is not timed; `elements` of it at once."""

    step: Step
    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    elements: int = 1
    clock: Callable[[], float] = _clock

    def seconds(self) -> float:
        prepared = self.prepare()
        started = self.clock()
        self.run(prepared)
        return (self.clock() - started) / self.elements


def _arbitrary(primes: Sequence[int], degree: int) -> Residues:
    """Residues (primes, N) spread over their moduli: multiples of 2^64 / golden ratio."""
    spread = np.arange(1, degree + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.stack([spread % np.uint64(prime) for prime in primes])


def ring_cases(degree: int, primes: int) -> Iterator[_Case]:
    """The operations of a ring with that many data primes, each prime as large as 128-bit security lets it be."""
    special = primes > 1
    bits = min(MAX_PRIME_BITS, MAX_MODULUS_BITS[degree] // (primes + special))
    parameters = seal.parameters(degree, (bits,) * primes, bits if special else None)
    ring, chain, seed = seal.Ring(parameters), parameters.data_primes, os.urandom(sealio.SEED_BYTES)
    c0, key_c0 = _arbitrary(chain, degree), _arbitrary(parameters.primes, degree)
    both, message = np.stack([c0, c0]), np.arange(degree, dtype=np.int64)
    a, b, plaintext = ring.load(both), ring.load(both), ring.plaintext(message)
    encryptor = ring.zero_encryptor(key_c0, seed)

    def fresh() -> seal.Ciphertext:
        return ring.load(both)

    def blind(_: object) -> object:
        zero = ring.residues(ring.encrypt_zero(encryptor)).copy()
        zero[0] = add(zero[0], ring.ntt_residues(c0), chain)
        return ring.load(zero)

    def encrypt(_: object) -> object:
        # SEAL samples the uniform half and a small error, transforms the error, and compresses the half that it saves,
        # which is as long as a plaintext. Sampling the error is taken to cost as much as a second transform.
        ring.evaluator.transform_from_ntt_inplace(ring.expand(c0, seed))
        sealio.body(sealio.saved(plaintext))
        return add(c0, ring.ntt(message), chain)

    def case(operation: Operation, run: Callable[[Any], object], prepare: Callable[[], Any] = lambda: None) -> _Case:
        return _Case(Step(operation, degree, primes), run, prepare)

    yield case(Operation.EXPAND, lambda _: ring.expand(c0, seed), fresh)  # a first load, since another ring came before
    yield case(Operation.LOAD, lambda _: ring.load(both))
    yield case(Operation.MULTIPLY_PLAIN, lambda _: ring.multiply(a, plaintext))
    yield case(Operation.ADD, lambda _: ring.add_to(a, b))
    yield case(Operation.MULTIPLY, lambda _: ring.product(a, b))
    yield case(Operation.SQUARE, lambda _: ring.square(a))
    yield case(Operation.ENCRYPT, encrypt)
    yield case(Operation.BLIND, blind)
    if not special:
        yield case(Operation.FINISH, ring.finish, fresh)
        return
    switching = [(key_c0, seed)] * primes
    galois, relin = ring.galois_keys({3: switching}), ring.relin_keys(switching)
    yield case(Operation.ROTATE, lambda _: ring.automorphism(a, 3, galois))
    yield case(Operation.RELINEARISE, lambda square: ring.relinearise(square, relin), lambda: ring.square(a))
    yield case(Operation.RESCALE, lambda loaded: ring.drop(loaded, primes - 1), fresh)


def scalar_cases() -> Iterator[_Case]:
    """What is counted by the element."""
    (prime,) = seal.parameters(8192, (MAX_PRIME_BITS,)).data_primes
    (values,), (many,) = _arbitrary((prime,), _PACKED), _arbitrary((prime,), _REDUCED)
    packed = pack(values, MAX_PRIME_BITS)
    rows, inner, columns = _GEMM
    left, right = np.ones((rows, inner)), np.ones((inner, columns))
    mask, shift, modulus = np.uint64((1 << _LIMB) - 1), np.uint64(_LIMB), np.uint64(prime)

    def split_and_recombine(_: object) -> object:
        low, high = (many & mask).astype(np.float64), (many >> shift).astype(np.float64)
        return ((high.astype(np.uint64) % modulus << shift) % modulus + low.astype(np.uint64)) % modulus

    yield _Case(Step(Operation.PACK), lambda _: pack(values, MAX_PRIME_BITS), elements=_PACKED)
    yield _Case(Step(Operation.UNPACK), lambda _: unpack(packed, _PACKED, MAX_PRIME_BITS, "residues"), elements=_PACKED)
    yield _Case(Step(Operation.REDUCE), split_and_recombine, elements=2 * _REDUCED)
    # The library may spread a product over threads of its own; the processor time of all is what one would take.
    gemm_clock = _clock if sys.platform == "win32" else time.process_time
    yield _Case(Step(Operation.GEMM), lambda _: left @ right, elements=rows * inner * columns, clock=gemm_clock)


def measure(points: Sequence[tuple[int, int]] = POINTS, rounds: int = ROUNDS) -> Calibration:
    """Measure every operation, those of rings at `points`; one of them needs one data prime and one several."""
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cases = [*(case for point in points for case in ring_cases(*point)), *scalar_cases()]
    for case in cases:
        case.seconds()  # first calls touch new memory
    bar = tqdm(range(rounds), desc="measuring this machine", delay=2, leave=False, disable=None)
    times = np.array([[case.seconds() for case in cases] for _ in bar])
    typical = np.maximum(np.quantile(times, 0.25, axis=0), 1e-12)
    pace = np.median(times / typical, axis=1)
    costs = UnitCosts({case.step: float(seconds) for case, seconds in zip(cases, typical, strict=True)})
    return Calibration(costs, load_average, float(np.median(pace) / pace.min()))


def fingerprint() -> str:
    """Names this machine and the libraries whose speed was measured."""
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line for line in lines if line.startswith("model name")), processor)
    parts = [processor, platform.machine(), os.cpu_count(), version("tenseal"), version("numpy"), POINTS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def cache_path() -> Path | None:
    """Where this machine's figures are kept; None where the user has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "secure-infer" / f"unit-costs-{fingerprint()}.json"


_lock = threading.Lock()
_measured: dict[Path | None, UnitCosts] = {}


def unit_costs(refresh: bool = False) -> UnitCosts:
    """This machine's unit costs: from the cache, else measured (about two seconds) and cached where that is possible."""
    path = cache_path()
    with _lock:
        held = None if refresh else _measured.get(path) or _read(path)
        if held is None:
            found = measure()
            if not found.steady:
                found = min(found, measure(), key=lambda calibration: calibration.drift)
            if found.steady and path is not None:
                _write(path, found)
            held = found.costs
        _measured[path] = held
        return held


def _read(path: Path | None) -> UnitCosts | None:
    try:
        if path is None or path.stat().st_size > 2 * MAX_JSON_CHARACTERS:
            return None
        return UnitCosts.from_json(json.dumps(json.loads(path.read_text(encoding="utf-8"))["costs"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, PlanRefused):
        return None


def _write(path: Path, found: Calibration) -> None:
    """Whole or not at all; a cache that cannot be written is no error."""
    record = {"load_average": found.load_average, "drift": found.drift, "costs": json.loads(found.costs.to_json())}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
