"""What an explanation says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Method(StrEnum):
    """OCCLUSION: by leaving out, of any model. EXACT: a linear head's own sum, of published weights."""

    OCCLUSION = "occlusion"
    EXACT = "exact"


@dataclass(frozen=True)
class Explanation:
    """How much each unit of a text adds to the logit of `label`.

    words: the text's words or phrases, in order, after de-identification. attributions: float64, one a unit, positive where
    it speaks for `label`, in units of the logit.

    OCCLUSION: an attribution is the logit of the whole text less that without the unit. Units that say the same thing cover
    for each other: both may then be near 0. EXACT: the attributions and `rest` add up to `logit`; a unit's share includes
    what it made of its neighbours' context.

    logit: of the whole text, for `label`. error_bound: on each attribution, from encryption; what is smaller says nothing.
    rest: of the logit, what no unit stands for (the bias and the marks at both ends); NaN for OCCLUSION.
    """

    label: str
    words: tuple[str, ...]
    attributions: NDArray[np.float64]
    logit: float
    error_bound: float
    method: Method
    rest: float = float("nan")

    def ranked(self) -> list[int]:
        """Places of the units, the one that speaks most for `label` first."""
        return [int(place) for place in np.argsort(-self.attributions, kind="stable")]

    def lines(self, width: int = 72, *, colour: bool = False) -> list[str]:
        """For a terminal of that many columns; see `render.lines`."""
        from secure_infer_client.explanation import render

        return render.lines(self, width, colour=colour)

    def html(self) -> str:
        """A page of its own, which loads nothing; see `render.html`. It holds the text: keep it as you keep the text."""
        from secure_infer_client.explanation import render

        return render.html(self)
