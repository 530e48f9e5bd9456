"""The packaged test rows: what the packaged heads were not trained on.

icd10_test.jsonl: the held-out split of the ICD-10-CM chapter task, public terminology and nobody's record. One JSON object
a line: {"text": ..., "label": the head's label, "code": the ICD-10-CM code it describes}. No 3-character category of these
codes occurs among the training texts of the packaged heads.

icd9_test.jsonl: the same diagnoses in other words. ICD-9-CM descriptions (version 32, CMS, public domain) all of whose
ICD-10-CM equivalents (general equivalence mappings, CMS, public domain) are in held-out categories of one chapter; `code` is
the ICD-9-CM code. None says what a training text says. `python -m secure_infer_benchmarks.accuracy.icd9` makes the file.

wdbc_test.csv: the rows held out from `wdbc.head`, thirty measurements in their own units and `label`, under a header. From
Breast Cancer Wisconsin (Diagnostic) by Wolberg, Mangasarian, Street and Street (1995), UCI Machine Learning Repository,
CC BY 4.0.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput

PUBLISHED_SEED = 2026
"""The seed of every published figure on drawn samples."""

FILE = "icd10_test.jsonl"
ICD9_FILE = "icd9_test.jsonl"
WDBC_FILE = "wdbc_test.csv"


@dataclass(frozen=True)
class Sample:
    """A diagnosis text, its chapter as the packaged heads label it, and the code it describes."""

    text: str
    label: str
    code: str


def load(file: str = FILE) -> list[Sample]:
    """Every sample of the held-out split, or of ICD9_FILE, in the file's order."""
    text = (resources.files(__package__) / file).read_text(encoding="utf-8")
    return [Sample(**json.loads(line)) for line in text.splitlines()]


def draw(n: int, seed: int = PUBLISHED_SEED) -> list[Sample]:
    """`n` distinct samples in seeded order; a smaller draw with the same seed is the head of a larger one.

    Raises InvalidInput unless 1 <= n <= the number of samples.
    """
    samples = load()
    if not 1 <= n <= len(samples):
        raise InvalidInput(f"samples: expected 1 to {len(samples)}, got {n}")
    random.Random(seed).shuffle(samples)  # noqa: S311 (a published draw, not a secret)
    return samples[:n]


def wdbc() -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The held-out measurements (B, 30), float64 in raw units, and the label of each row as `wdbc.head` labels."""
    text = (resources.files(__package__) / WDBC_FILE).read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    return np.array([row[:-1] for row in rows], dtype=np.float64), tuple(row[-1] for row in rows)
