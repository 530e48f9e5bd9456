"""The diagonal method for a linear layer, as data: the peers that work on slots encode these vectors with their libraries.

A layer W (K, d), both padded to powers of two, is evaluated over slots that repeat x (Halevi and Shoup, CRYPTO 2014,
in the rectangular form of Gazelle, USENIX Security 2018). With u_i[j] = W[j mod K, (j + i) mod d] for i < K:

    y = fold(sum_i u_i * rotate(x, i)),    fold: add rotations by d/2, d/4, ..., K

    K = 2, d = 4:   u_0 = W00 W11 W02 W13,  u_1 = W01 W12 W03 W10;  slot 0 after the fold by 2: W00 x0 + W02 x2 + W01 x1 + W03 x3

Rotations are split i = g B + b: the B baby steps rotate x, the giant steps rotate sums (u is rotated back beforehand).
y comes out repeated with period K, which is what the next layer expects. Needs numpy alone, and Python 3.10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True)
class Diagonals:
    """vectors: of each giant step the u (slots,) of its baby steps. folds: rotations of the fold. bias: (slots,)."""

    vectors: list[list[Floats]]
    folds: list[int]
    bias: Floats

    @classmethod
    def of(cls, weight: Floats, bias: Floats, slots: int) -> Diagonals:
        """The vectors of a layer W (K, d), b (K,); slots: a power of two, at least K and d."""
        outputs, features = (power_of_two(n) for n in weight.shape)
        features = max(features, outputs)
        babies = power_of_two(int(np.sqrt(outputs)))
        padded = np.zeros((outputs, features))
        padded[: weight.shape[0], : weight.shape[1]] = weight
        j = np.arange(slots)
        vectors = [
            [
                np.roll(padded[j % outputs, (j + giant * babies + baby) % features], giant * babies)
                for baby in range(babies)
            ]
            for giant in range(outputs // babies)
        ]
        folds = [outputs << k for k in reversed(range((features // outputs).bit_length() - 1))]
        return cls(vectors, folds, np.pad(bias, (0, outputs - len(bias)))[j % outputs])

    @property
    def babies(self) -> int:
        """How many baby steps there are, which is also by how much a giant step rotates."""
        return len(self.vectors[0])

    def rotations(self) -> set[int]:
        """The steps that need a key."""
        return {*range(1, self.babies), *({self.babies} if len(self.vectors) > 1 else ()), *self.folds}
