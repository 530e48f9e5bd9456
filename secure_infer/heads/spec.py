"""What a server tells about a model: public facts, never weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import split
from secure_infer.heads.contract import InputContract
from secure_infer.heads.head import Head
from secure_infer.heads.layers import Layer
from secure_infer.heads.task import Task


@dataclass(frozen=True)
class ModelSpec:
    """One served model; `digest` is the head's, in hex. public_layers: those that clients evaluate. See `Head` for the
    rest."""

    name: str
    digest: str
    contract: InputContract
    outputs: int
    labels: tuple[str, ...]
    task: Task
    embedder: str | None
    temperature: tuple[float, ...]
    layers: tuple[str, ...]
    abstain_below: float | None
    public_layers: tuple[Layer, ...] = ()

    @classmethod
    def of(cls, name: str, head: Head) -> ModelSpec:
        return cls(
            name=name,
            digest=head.digest,
            contract=head.contract,
            outputs=head.outputs,
            labels=head.labels,
            task=head.task,
            embedder=head.embedder,
            temperature=tuple(np.atleast_1d(head.temperature).tolist()),
            layers=tuple(layer.kind for layer in head.layers),
            abstain_below=head.abstain_below,
            public_layers=split.public_layers(head),
        )

    @cached_property
    def encrypted(self) -> InputContract:
        """What the rows that are encrypted keep: those after the public layers."""
        return split.contract_after(self.public_layers, self.contract)

    def carry(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows that are encrypted, from rows (B, d) that keep the contract: the client's part of the head."""
        return split.evaluate_layers(self.public_layers, x)

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities (B, labels) of logits (B, K).

        Softmax for classification (the sigmoid for a binary head); a sigmoid a label for multilabel; for regression
        there are none: NaN.
        """
        scaled = logits / np.array(self.temperature)
        if self.task is Task.REGRESSION:
            return np.full_like(scaled, np.nan)
        if self.task is Task.MULTILABEL:
            return np.asarray(0.5 * (1 + np.tanh(scaled / 2)))
        if self.outputs == 1:
            scaled = np.concatenate([np.zeros_like(scaled), scaled], axis=1)
        exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def margins(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Per row (B,): how far the logits are from another answer.

        The best logit's lead over the second best; the smallest |logit| for a binary or multilabel head; infinity for
        regression, whose answer is the number itself.
        """
        if self.task is Task.REGRESSION:
            return np.full(len(logits), np.inf)
        if self.outputs == 1 or self.task is Task.MULTILABEL:
            return np.asarray(np.abs(logits).min(axis=1))
        best = np.partition(logits, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2])

    def decide(self, logits: NDArray[np.float64]) -> list[str]:
        """The answer of each row of logits (B, K) in words: a label, the labels that hold joined by "; ", or numbers."""
        if self.task is Task.REGRESSION:
            return [
                "; ".join(f"{name} {value:.4g}" for name, value in zip(self.labels, row, strict=True)) for row in logits
            ]
        return self.named(logits > 0 if self.by_sign else logits == logits.max(axis=1, keepdims=True))

    @property
    def by_sign(self) -> bool:
        """Whether each logit's sign is an answer of its own (binary heads, multilabel), not the place of the largest."""
        return self.outputs == 1 or self.task is Task.MULTILABEL

    def named(self, holds: NDArray[np.bool_]) -> list[str]:
        """Labels in words from what holds (B, K): which logits are above zero, or which is the largest (the first of equals).

        Regression has no labels.
        """
        if self.task is Task.MULTILABEL:
            return ["; ".join(name for name, held in zip(self.labels, row, strict=True) if held) for row in holds]
        chosen = holds[:, 0].astype(int) if self.outputs == 1 else holds.argmax(axis=1)
        return [self.labels[i] for i in chosen]
