"""What a server tells about a model: public facts, never weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads.contract import InputContract
from secure_infer.heads.head import Head


@dataclass(frozen=True)
class ModelSpec:
    """One served model; `digest` is the head's, in hex. See `Head` for the rest."""

    name: str
    digest: str
    contract: InputContract
    outputs: int
    labels: tuple[str, ...]
    embedder: str | None
    temperature: tuple[float, ...]
    layers: tuple[str, ...]

    @classmethod
    def of(cls, name: str, head: Head) -> ModelSpec:
        return cls(
            name=name,
            digest=head.digest,
            contract=head.contract,
            outputs=head.outputs,
            labels=head.labels,
            embedder=head.embedder,
            temperature=tuple(np.atleast_1d(head.temperature).tolist()),
            layers=tuple(layer.kind for layer in head.layers),
        )

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (B, labels) of logits (B, K): softmax, or the sigmoid for a binary head."""
        scaled = logits / np.array(self.temperature)
        if self.outputs == 1:
            scaled = np.concatenate([np.zeros_like(scaled), scaled], axis=1)
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def margins(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per row (B,): the best logit's lead over the second best; |logit| for a binary head."""
        if self.outputs == 1:
            return np.abs(logits[:, 0])
        best = np.partition(logits, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2])
