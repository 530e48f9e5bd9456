"""Which number of an answer is explained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput
from secure_infer.heads import ModelSpec, Task


@dataclass(frozen=True)
class Target:
    """An output of the model, with the sign under which it speaks for `label`: a binary head has one logit for two labels."""

    label: str
    output: int
    sign: float = 1.0

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B,) from logits (B, K)."""
        return np.asarray(self.sign * logits[:, self.output])

    @classmethod
    def of(cls, spec: ModelSpec, logits: NDArray[np.float64], label: str | None) -> Target:
        """The label asked for, or the one that logits (K,) answer with: the largest of several, the first number of a
        regression. Raises InvalidInput for a label that the model does not have."""
        if label is not None and label not in spec.labels:
            raise InvalidInput(f"label: model {spec.name!r} has {', '.join(spec.labels)}; got {label[:64]!r}")
        if spec.outputs == 1 and spec.task is Task.CLASSIFICATION:
            place = int(logits[0] > 0) if label is None else spec.labels.index(label)
            return cls(spec.labels[place], 0, 1.0 if place else -1.0)
        if label is not None:
            place = spec.labels.index(label)
        else:
            place = 0 if spec.task is Task.REGRESSION else int(logits.argmax())
        return cls(spec.labels[place], place)
