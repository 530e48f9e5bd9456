"""What the workload is asked: test images where they are installed, else random rows of norm one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import Head
from secure_infer_benchmarks.mnist.data import LICENCE, PIXELS, Unavailable, load, standardised
from secure_infer_benchmarks.mnist.train import random_head
from secure_infer_benchmarks.synthetic import inputs

Floats = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[2] / "mnist"
"""Where a source tree has the trained heads."""


@dataclass(frozen=True, eq=False)
class Samples:
    """rows (n, 784) as a client encrypts them. digits (n,), None for random rows. logits (n, 10) of the head in plaintext."""

    described: str
    rows: Floats
    digits: NDArray[np.uint8] | None
    logits: Floats

    @classmethod
    def of(cls, head: Head, count: int = 10_000) -> Samples:
        """Test images in the set's own order, or random rows."""
        try:
            test = load("t10k")
        except Unavailable as reason:
            rows, digits = inputs(PIXELS, count), None
            described = f"random rows, so nothing is said of accuracy: {reason}"
        else:
            rows, digits = standardised(test.images[:count]), test.digits[:count]
            described = f"MNIST test images, in the set's order, none of them trained on; {LICENCE}"
        return cls(described, rows, digits, head.evaluate(rows))

    def compared(self, logits: Floats) -> dict[str, float]:
        """Of the first rows' logits (m, 10) as decrypted: their error, how often the answer is plaintext's, accuracies."""
        count = len(logits)
        plain = self.logits[:count]
        told = self.labels(logits.argmax(axis=1))
        return told | {"max_logit_error": float(np.abs(logits - plain).max())}

    def labels(self, found: NDArray[np.int64]) -> dict[str, float]:
        """Of the first rows' answers (m,): how often plaintext's, and accuracies where digits are known."""
        count = len(found)
        plain = self.logits[:count].argmax(axis=1)
        told = {"images": float(count), "agreement": float((found == plain).mean())}
        if self.digits is not None:
            told["accuracy"] = float((found == self.digits[:count]).mean())
            told["plaintext_accuracy"] = float((plain == self.digits[:count]).mean())
        return told


def head(name: str) -> Head | None:
    """The trained head of that name, "square" or "relu"; None outside a source tree."""
    path = FOLDER / f"mnist-{name}.head"
    return Head.load(path) if path.is_file() else None


def square_head() -> tuple[str, Head]:
    """(what it is, head): the trained one, or one of random weights."""
    trained = head("square")
    if trained is None:
        return "random weights: the trained head is in the source tree, not in the installed package", random_head()
    return "trained, squares for ReLU", trained
