"""A head: layers on top of an embedding or feature vector, with labels and an input contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_infer.errors import InvalidHead
from secure_infer.heads import adapters, artifact
from secure_infer.heads.contract import InputContract, rows
from secure_infer.heads.layers import Floats, Layer, Linear, Polynomial
from secure_infer.heads.task import Task


class Head:
    """A classifier or regressor head; immutable.

    layers: in order of evaluation; the first linear layer fixes the input width d, the last width is K.
    labels: K names; two names for a classifier with K = 1 (a binary head: sigmoid of the logit is the second's probability).
    task: "classification" (one of the labels), "multilabel" (each label by itself) or "regression" (the outputs as they are).
    input_bound, input_norm: see `InputContract`.
    public_layers: how many leading layers may be shown to clients (0: none).
    embedder: identity of the embedder the head was trained on, or None for plain features.
    temperature: a number, or one per class, that divides logits before softmax (calibration); logits stay as they are.
    abstain_below: probability under which an answer is better left to a person, chosen on validation rows; None: no advice.
    facts: training facts, anything JSON can hold; carried, never interpreted.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        labels: Sequence[str],
        input_bound: float,
        input_norm: float | None = None,
        task: str = Task.CLASSIFICATION,
        public_layers: int = 0,
        embedder: str | None = None,
        temperature: float | Sequence[float] = 1.0,
        abstain_below: float | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.layers = tuple(layers)
        if not all(isinstance(layer, Layer) for layer in self.layers):
            raise InvalidHead(
                f"layers: expected Linear, Square, Polynomial or ReLU, got {[type(x).__name__ for x in layers]}"
            )
        if not self.layers or not isinstance(self.layers[0], Linear):
            raise InvalidHead("layers: expected a Linear layer first")
        width = int(self.layers[0].weight.shape[1])
        self.contract = InputContract(width, float(input_bound), None if input_norm is None else float(input_norm))
        for layer in self.layers:
            width = layer.width_out(width)
        self.outputs = width
        if task not in list(Task):
            raise InvalidHead(f"task: expected one of {', '.join(Task)}, got {task!r}")
        self.task = Task(task)
        self.labels = tuple(labels)
        if not all(isinstance(label, str) for label in self.labels) or len(self.labels) != self.task.labels(width):
            hint = "; one output is a binary head (negative, positive) unless task='regression'" if width == 1 else ""
            raise InvalidHead(
                f"labels: expected {self.task.labels(width)} strings for {width} outputs, got {len(self.labels)}{hint}"
            )
        if not 0 <= public_layers <= len(self.layers):
            raise InvalidHead(f"public_layers: expected 0 to {len(self.layers)}, got {public_layers}")
        self.public_layers = int(public_layers)
        self.embedder = embedder
        self.temperature = np.array(temperature, dtype=np.float64)
        if self.temperature.shape not in ((), (width,)) or not (self.temperature > 0).all():
            raise InvalidHead(
                f"temperature: expected one positive number or {width}, got shape {self.temperature.shape}"
            )
        if abstain_below is not None and not 0 < abstain_below < 1:
            raise InvalidHead(f"abstain_below: expected a probability between 0 and 1, got {abstain_below}")
        self.abstain_below = None if abstain_below is None else float(abstain_below)
        self.facts: dict[str, Any] = dict(facts or {})

    @property
    def features(self) -> int:
        """d, the input width."""
        return self.contract.features

    def evaluate(self, x: Any) -> NDArray[np.float64]:
        """Plaintext logits (B, K), float64, of rows x (B, d): the reference that every encrypted plan is held to.

        Raises InvalidInput on shape, dtype, NaN or infinity. The bound is a matter of encoding, so it is
        `head.contract.check` that holds inputs to it, not this.
        """
        y: Floats = rows(x, self.features)
        for layer in self.layers:
            y = layer(y)
        return y

    def as_linear(self) -> Linear | None:
        """The head as one Linear layer when it is an affine map, else None."""
        weight, bias = np.eye(self.features), np.zeros(self.features)
        for layer in self.layers:
            if isinstance(layer, Linear):
                weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
            elif isinstance(layer, Polynomial) and not layer.coefficients[..., 2:].any():
                slope = layer.coefficients[..., 1] if layer.degree else np.zeros(layer.coefficients.shape[:-1])
                weight, bias = np.atleast_1d(slope)[:, None] * weight, slope * bias + layer.coefficients[..., 0]
            else:
                return None
        return Linear(weight, bias)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over layers, labels, contract and calibration: equal exactly when answers are."""
        return artifact.digest(self)

    def save(self, path: str | Path) -> None:
        """Write the artifact: one safetensors file with a versioned JSON header, atomically."""
        artifact.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Head:
        """Read an artifact; raises InvalidHead, saying what is wrong, when it is corrupt or of an unknown version."""
        return cls(**artifact.load(Path(path)))

    @classmethod
    def from_sklearn(
        cls,
        estimator: Any,
        *,
        input_bound: float | None = None,
        calibration: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
        **arguments: Any,
    ) -> Head:
        """A head of a fitted scikit-learn estimator or pipeline; logits equal its `decision_function` (or `predict`).

        input_bound: largest |x_i| accepted; without it, the largest in `calibration`, rows (n, d) as the estimator takes
        them. labels: default to the estimator's classes. arguments: passed to `Head`.
        Raises InvalidHead when a part is not supported, saying what is.
        """
        layers, classes, task, largest = adapters.from_sklearn(estimator, calibration)
        task = Task(arguments.pop("task", task))
        bound = largest if input_bound is None else input_bound
        if bound is None:
            raise InvalidHead("from_sklearn: give input_bound, or calibration rows to read it from")
        names = adapters.labels_for(layers, labels or classes, task)
        return cls(layers, labels=names, task=task, input_bound=bound, **arguments)

    @classmethod
    def from_torch(
        cls, module: Any, *, input_bound: float, labels: Sequence[str] | None = None, **arguments: Any
    ) -> Head:
        """A head of a torch module (nn.Sequential of Linear, ReLU, Identity, Dropout); arguments: passed to `Head`."""
        layers, task = adapters.from_torch(module), Task(arguments.pop("task", Task.CLASSIFICATION))
        names = adapters.labels_for(layers, labels, task)
        return cls(layers, labels=names, task=task, input_bound=input_bound, **arguments)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Head) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kinds = [f"{k.kind}({w})" for k, w in zip(self.layers, self._widths(), strict=True)]
        shape = " -> ".join([str(self.features), *kinds])
        return f"Head({shape}, {len(self.labels)} labels, |x| <= {self.contract.bound:g}, norm {self.contract.norm})"

    def _widths(self) -> list[int]:
        widths, width = [], self.features
        for layer in self.layers:
            width = layer.width_out(width)
            widths.append(width)
        return widths
