"""The packaged example heads and their cards.

ICD-10-CM chapter from diagnosis text: `icd10-chapter-linear.head` is the fast one, `icd10-chapter.head` (a learned
quadratic) the more accurate one. Malignant or benign from thirty measurements: `wdbc.head`, one logit, no text.
"""

from importlib import resources
from pathlib import Path


def path() -> Path:
    """The directory that holds the packaged example heads, as `secure-infer serve --models` takes it."""
    return Path(str(resources.files(__name__)))
