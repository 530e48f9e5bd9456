"""The task "ICD-10-CM chapter from diagnosis text", built from public terminology without leaks.

Source: the ICD-10-CM tabular list (CDC/NCHS, public domain) as packaged by simple-icd-10-cm: descriptions and inclusion
terms. Most of its entries are variants of one another (side, encounter, trimester), so rows are reduced to
one per key (`key`), capped per 3-character category, and split **by category**: no variant of a test text is trained
on.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from secure_infer.distill import packaged
from secure_infer.errors import InvalidInput

CHAPTERS = (
    "I Infections",
    "II Neoplasms",
    "III Blood and immune system",
    "IV Endocrine and metabolic",
    "V Mental and behavioural",
    "VI Nervous system",
    "VII Eye",
    "VIII Ear",
    "IX Circulatory system",
    "X Respiratory system",
    "XI Digestive system",
    "XII Skin",
    "XIII Musculoskeletal system",
    "XIV Genitourinary system",
    "XV Pregnancy and childbirth",
    "XVI Perinatal period",
    "XVII Congenital anomalies",
    "XVIII Symptoms and findings",
    "XIX Injury and poisoning",
    "XX External causes",
    "XXI Health status and services",
)
"""Labels by chapter. Chapter XXII (codes for special purposes, eleven rows) is left out."""

SEED = 20260401
CAP = 30
"""Rows kept per 3-character category; the rest of the training categories serves as unlabelled text."""

TABULAR = "icd10c-tabular-April-1-2026.xml"
TABULAR_SHA256 = "f161f8182aff3ce3a2a78e202f8259c08eaee2c670a9e45b0072445c52302935"

# What variants of one description differ in, and words that carry no topic.
_NOISE = re.compile(
    r"\b(?:right|left|bilateral|unspecified|initial|subsequent|encounter|sequela|nos|nec|not elsewhere classified|"
    r"other|specified|side|ear|first|second|third|fourth|trimester|upper|lower|grade|stage|degree|with|without|of|the|and|or|"
    r"in|to|due)\b|[^a-z ]"
)
_TRAILING_CODES = re.compile(r"\s*\([A-Z]\d[\dA-Z.\-, ]*\)\s*$")


@dataclass(frozen=True)
class Row:
    """One text. `chapter` indexes CHAPTERS, `category` is the 3-character category, `natural` an inclusion term."""

    text: str
    chapter: int
    category: str
    code: str
    natural: bool


@dataclass(frozen=True)
class Dataset:
    """The task: labelled splits, disjoint by category; `transfer` is capped-out text of training categories."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    transfer: tuple[Row, ...]


def key(text: str) -> str:
    """What a text says once laterality, encounter, grade, digits and stop words are gone; equal keys are duplicates."""
    return " ".join(_NOISE.sub(" ", text.lower()).split())


def build(seed: int = SEED) -> Dataset:
    """The dataset of that seed: about 18,800 training, 2,800 validation, 5,700 test and 8,200 transfer rows.

    Per chapter, 20% of the categories are test and 10% validation. Raises ModuleNotFoundError without the extra
    `train`, and InvalidInput when the packaged list is not the one this recipe was written for.
    """
    generator = random.Random(seed)  # noqa: S311 (a reproducible split, not a secret)
    rows = _distinct(list(_entries()), generator)
    kept: list[Row] = []
    capped: list[Row] = []
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row.category] += 1
        (kept if seen[row.category] <= CAP else capped).append(row)
    by_chapter: dict[int, list[str]] = defaultdict(list)
    for chapter, category in sorted({(row.chapter, row.category) for row in kept}):
        by_chapter[chapter].append(category)
    split = {}
    for categories in by_chapter.values():
        generator.shuffle(categories)
        for index, category in enumerate(categories):
            share = index / len(categories)
            split[category] = "test" if share < 0.2 else "validation" if share < 0.3 else "train"
    return Dataset(
        train=tuple(row for row in kept if split[row.category] == "train"),
        validation=tuple(row for row in kept if split[row.category] == "validation"),
        test=tuple(row for row in kept if split[row.category] == "test"),
        transfer=tuple(row for row in capped if split[row.category] == "train"),
    )


def _distinct(rows: list[Row], generator: random.Random) -> list[Row]:
    """One row per key, an inclusion term where there is one; keys that occur in two chapters are dropped."""
    chapters: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        chapters[key(row.text)].add(row.chapter)
    generator.shuffle(rows)
    rows.sort(key=lambda row: not row.natural)
    first: dict[str, Row] = {}
    for row in rows:
        if len(chapters[key(row.text)]) == 1:
            first.setdefault(key(row.text), row)
    return list(first.values())


def _entries() -> Iterator[Row]:
    data = packaged.read("simple_icd_10_cm", f"data/{TABULAR}")
    found = hashlib.sha256(data).hexdigest()
    if found != TABULAR_SHA256:
        raise InvalidInput(
            f"{TABULAR}: got sha256 {found[:16]}…, expected {TABULAR_SHA256[:16]}…; install simple-icd-10-cm==1.5.0"
        )
    root = ElementTree.fromstring(data)  # noqa: S314 (the bytes were just compared with a pinned hash)
    for chapter in root.findall("chapter"):
        index = int(chapter.findtext("name", "")) - 1
        if index < len(CHAPTERS):
            for diagnosis in chapter.findall("section/diag"):
                yield from _walk(diagnosis, index, diagnosis.findtext("name", "")[:3])


def _walk(node: ElementTree.Element, chapter: int, category: str) -> Iterator[Row]:
    code = node.findtext("name", "")
    texts = [(node.findtext("desc", ""), False)]
    for tag in ("inclusionTerm", "includes"):
        texts += [(note.text or "", tag == "inclusionTerm") for note in node.findall(f"{tag}/note")]
    for text, natural in texts:
        text = _TRAILING_CODES.sub("", text.strip()).strip()
        if len(text) >= 4 and key(text):
            yield Row(text, chapter, category, code, natural)
    for child in node.findall("diag"):
        yield from _walk(child, chapter, category)
