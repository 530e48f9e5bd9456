"""Occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014): leave one out, ask again.

    "acute appendicitis"  ->  "acute appendicitis", "appendicitis", "acute", and the first again up to 16 variants

The server sees 16 encrypted rows, whatever the words are; their number, to the next multiple of 16, tells the length of the
text that coarsely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import ModelSpec
from secure_infer_client.explanation.explanation import Explanation, Method
from secure_infer_client.explanation.target import Target

PAD = 16
_NOTHING = "."
"""What stands for a text whose only unit is left out: an embedder takes no empty text."""


def variants(units: Sequence[str]) -> list[str]:
    """The whole text, then the text without each unit in turn, then the whole again up to a multiple of `PAD`."""
    whole = " ".join(units)
    found = [whole, *(" ".join([*units[:i], *units[i + 1 :]]) or _NOTHING for i in range(len(units)))]
    return found + [whole] * (-len(found) % PAD)


def explanation(
    spec: ModelSpec, units: Sequence[str], logits: NDArray[np.float64], bound: float, label: str | None
) -> Explanation:
    """From the logits (R, K) of `variants`. bound: on the error of each logit."""
    target = Target.of(spec, logits[0], label)
    scores = target.scores(logits[: len(units) + 1])
    return Explanation(
        label=target.label,
        words=tuple(units),
        attributions=scores[0] - scores[1:],
        logit=float(scores[0]),
        error_bound=2 * bound,
        method=Method.OCCLUSION,
    )
