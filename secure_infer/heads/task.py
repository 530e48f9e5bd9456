"""What a head's outputs mean, and so how they become probabilities."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """CLASSIFICATION: one of the labels. MULTILABEL: each label by itself. REGRESSION: the outputs are the answer."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"

    def labels(self, outputs: int) -> int:
        """Names that a head of that many outputs has."""
        return 2 if self is Task.CLASSIFICATION and outputs == 1 else outputs
