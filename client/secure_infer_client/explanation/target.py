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
        """The label asked for, by its name or a part of it that no other label has, or the one that logits (K,) answer with:
        the largest of several, the first number of a regression. Raises InvalidInput for a label that the model does not have.
        """
        asked = None if label is None else _place(spec, label)
        if spec.outputs == 1 and spec.task is Task.CLASSIFICATION:
            place = int(logits[0] > 0) if asked is None else asked
            return cls(spec.labels[place], 0, 1.0 if place else -1.0)
        if asked is not None:
            place = asked
        else:
            place = 0 if spec.task is Task.REGRESSION else int(logits.argmax())
        return cls(spec.labels[place], place)


def _place(spec: ModelSpec, label: str) -> int:
    """Of the label with that name, or of the only one whose name contains it, capitals or not."""
    if label in spec.labels:
        return spec.labels.index(label)
    within = [place for place, name in enumerate(spec.labels) if label and label.casefold() in name.casefold()]
    if len(within) == 1:
        return within[0]
    if within:
        meant = ", ".join(spec.labels[place] for place in within)
        raise InvalidInput(f"label: {label[:64]!r} is a part of several: {meant}; name one of them")
    raise InvalidInput(f"label: model {spec.name!r} has {', '.join(spec.labels)}; got {label[:64]!r}")
