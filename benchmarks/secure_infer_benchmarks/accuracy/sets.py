"""The labelled sets, and which heads are asked about them. No head was trained on any of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secure_infer_benchmarks.embeddings import embedded
from secure_infer_client import samples

CHAPTERS = ("icd10-chapter-linear", "icd10-chapter")
TERMINOLOGY = "Medical terminology, not clinical notes: accuracy on notes was not measured."
ICD10 = (
    "{count} held-out ICD-10-CM texts: descriptions and inclusion terms, labelled with their chapter. Near-duplicates were "
    "removed; of every chapter a fifth of the 3-character categories, drawn at random, is held out whole, so no variant of these "
    "texts was trained on."
)
ICD9 = (
    "{count} ICD-9-CM descriptions, a shift of wording: the words in use until 2015 for diagnoses all of whose ICD-10-CM "
    "equivalents (general equivalence mappings) are in held-out categories of one chapter, the label. Texts that say what a "
    "training text says are left out."
)
DRAW = ", a draw"
WDBC = (
    "{count} of the 569 masses of Breast Cancer Wisconsin (Diagnostic), a fifth held out from training, stratified by label. "
    "Thirty measurements each, no text. One row is {one:.1%} of accuracy."
)


@dataclass(frozen=True)
class Labelled:
    """Texts with labels, or (WDBC) rows with labels. title: what they are; drawn: how they were made and drawn, in sentences."""

    name: str
    heads: tuple[str, ...]
    title: str
    drawn: str
    labels: tuple[str, ...]
    texts: tuple[str, ...] = ()
    features: NDArray[np.float64] | None = None

    def rows(self) -> NDArray[np.float64]:
        """(B, d), float64; raises ModuleNotFoundError for texts without the extra `text`."""
        return embedded(self.texts) if self.features is None else self.features

    def some(self, places: NDArray[np.intp]) -> Labelled:
        """Of texts those at `places`, as a set of its own."""
        if len(places) == len(self.labels):
            return self
        return replace(
            self,
            name=f"{self.name}-drawn",
            title=self.title if self.title.endswith(DRAW) else f"{self.title}{DRAW}",
            drawn=f"{len(places):,} drawn at random (seed {samples.PUBLISHED_SEED}) of these: {self.drawn}",
            labels=tuple(self.labels[i] for i in places),
            texts=tuple(self.texts[i] for i in places),
        )


def draw(count: int, of: int) -> NDArray[np.intp]:
    """`count` places of `of` (all of fewer), in order; a smaller draw is part of a larger one."""
    return np.sort(np.random.default_rng(samples.PUBLISHED_SEED).permutation(of)[:count])


def load(share: int = 1) -> list[Labelled]:
    """All sets. share: one text in so many is drawn; of measurements all are taken."""
    x, labels = samples.wdbc()
    every = [
        _texts("icd10", samples.FILE, "ICD-10-CM terms held out", ICD10),
        _texts("icd9", samples.ICD9_FILE, "ICD-9-CM wording of held-out diagnoses", ICD9),
    ]
    return [
        *(replace(one.some(draw(-(-len(one.labels) // share), len(one.labels))), name=one.name) for one in every),
        Labelled(
            "wdbc",
            ("wdbc",),
            "WDBC, masses held out",
            WDBC.format(count=len(x), one=1 / len(x)),
            labels,
            features=x,
        ),
    ]


def _texts(name: str, file: str, title: str, drawn: str) -> Labelled:
    packaged = samples.load(file)
    return Labelled(
        name,
        CHAPTERS,
        f"{title} (terminology, not clinical notes)",
        f"{drawn.format(count=f'All {len(packaged):,}')} {TERMINOLOGY}",
        labels=tuple(sample.label for sample in packaged),
        texts=tuple(sample.text for sample in packaged),
    )
