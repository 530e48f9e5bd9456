"""Python, packages, the encryption library, the embedder."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from time import perf_counter

import numpy as np

from secure_infer import __version__
from secure_infer_client.doctor.finding import Finding, note, ok, problem, tried

_TESTED = ("Linux", "x86_64")
_NAME = re.compile(r"^[A-Za-z0-9._-]+")
_LEAST = re.compile(r">=\s*([0-9.]+)")
# What each extra is for, and a package that shows it is there.
_EXTRAS = {
    "text": ("onnxruntime", "texts are embedded here"),
    "server": ("grpc_health", "serving, parties, dealer"),
    "mpc": ("torch", "CrypTen's comparisons at a party"),
    "train": ("simple_icd_10_cm", "distilling models"),
    "tables": ("pyarrow", "parquet files"),
    "keyring": ("keyring", "keys of key rings in the system's keyring"),
}


def looks() -> Iterator[Finding]:
    yield _python()
    yield _packages()
    yield _extras()
    yield tried("encryption", "reinstall it: pip install --force-reinstall tenseal numpy", _encryption)
    yield tried("embedder", "pip install --force-reinstall 'secure-infer[text]'", _embedder)


def _python() -> Finding:
    found = f"secure-infer {__version__}, {platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    if sys.implementation.name != "cpython":
        return problem("python", found, "CPython is needed: the encryption library has wheels for nothing else")
    if (platform.system(), platform.machine()) != _TESTED:
        return note(
            "python", found, "tested on Linux x86-64 alone; run `secure-infer demo` to see whether it works here"
        )
    return ok("python", found)


def _packages() -> Finding:
    """Those that the light installation needs."""
    missing, old, held = [], [], []
    for requirement in metadata.requires("secure-infer") or []:
        if "extra ==" in requirement:
            continue
        found, least = _NAME.match(requirement), _LEAST.search(requirement)
        name = "" if found is None else found.group()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        held.append(f"{name} {version}")
        if least is not None and _numbers(version) < _numbers(least.group(1)):
            old.append(f"{name} {version}, expected {least.group(1)} or newer")
    if missing or old:
        what = "; ".join([f"{name} is missing" for name in missing] + old)
        return problem("packages", what, "install them in one call: pip install --upgrade secure-infer")
    return ok("packages", ", ".join(held))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _extras() -> Finding:
    from importlib.util import find_spec

    there = [extra for extra, (package, _) in _EXTRAS.items() if find_spec(package) is not None]
    missing = [f"{extra} ({what})" for extra, (_, what) in _EXTRAS.items() if extra not in there]
    if not missing:
        return ok("extras", ", ".join(there))
    return note(
        "extras",
        f"installed: {', '.join(there) or 'none'}; not: {', '.join(missing)}",
        "where you need one: pip install 'secure-infer[EXTRA]'",
    )


def _encryption() -> Finding:
    """Residues through the library and back: 2 X^(N-1) times X is -2 in the ring of X^N + 1."""
    from secure_infer.ckks import seal

    started = perf_counter()
    ring = seal.ring(seal.parameters(4096, (50,)))
    (prime,) = ring.parameters.data_primes
    last = np.zeros(4096, dtype=np.int64)
    last[-1], shift = 2, np.zeros(4096, dtype=np.int64)
    shift[1] = 1
    twice = ring.load(np.stack([ring.ntt(last)] * 2))
    product = ring.residues(ring.multiply(twice, ring.plaintext(shift)))
    expected = np.zeros((1, 4096), dtype=np.uint64)
    expected[0, 0] = prime - 2
    if not np.array_equal(ring.coefficients(product[0]), expected):
        return problem(
            "encryption", "a product in the ring came out wrong", "reinstall tenseal and numpy; do not use it so"
        )
    took = f"a product in the ring is right, {1e3 * (perf_counter() - started):.0f} ms with set-up"
    if sys.platform != "linux":  # see `ckks.memoryfile`
        return note("encryption", f"{took}; no memory files here, so public objects pass through temporary ones")
    return ok("encryption", took)


def _embedder() -> Finding:
    try:
        from secure_infer_client.text.embed import MiniLM

        started = perf_counter()
        embedder = MiniLM()
        loaded = perf_counter()
        embedder(["Acute appendicitis"])
        first = perf_counter()
    except ModuleNotFoundError as error:
        return note(
            "embedder", f"{error.name} is not installed", "to embed texts here: pip install 'secure-infer[text]'"
        )
    return ok(
        "embedder",
        f"files are as they should be; {1e3 * (loaded - started):.0f} ms to load, {1e3 * (first - loaded):.0f} a text",
    )
