"""Heads from models that people already have. Neither scikit-learn nor torch is imported: attributes tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_infer.errors import InvalidHead
from secure_infer.heads.layers import Layer, Linear, ReLU
from secure_infer.heads.task import Task

Floats = NDArray[np.float64]

_LINEAR = {
    *(
        "LogisticRegression",
        "LogisticRegressionCV",
        "LinearSVC",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
    ),
    *("Perceptron", "LinearDiscriminantAnalysis", "LinearRegression", "Ridge", "RidgeCV", "Lasso", "ElasticNet"),
    *("SGDRegressor", "LinearSVR", "HuberRegressor", "BayesianRidge"),
}
_SKLEARN = (
    "linear classifiers and regressors (LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier, Ridge, "
    "LinearRegression), OneVsRestClassifier around one, MLPClassifier and MLPRegressor with activation 'relu' or "
    "'identity', and a Pipeline of StandardScaler, MinMaxScaler or MaxAbsScaler before one of them"
)
_TORCH = "nn.Sequential of Linear, ReLU, Identity and Dropout"


def from_sklearn(
    estimator: Any, calibration: ArrayLike | None
) -> tuple[list[Layer], list[str] | None, Task, float | None]:
    """(layers, labels or None, task, bound or None) of a fitted estimator; logits equal its `decision_function`.

    calibration: rows (n, d) whose largest |x_i| becomes the bound. Raises InvalidHead for what is not supported.
    """
    steps = [step for _, step in estimator.steps] if hasattr(estimator, "steps") else [estimator]
    *scalers, model = [step for step in steps if step is not None and not isinstance(step, str)]
    layers = _model(model)
    for scaler in reversed(scalers):
        layers[0] = _scaled(layers[0], *_scaling(scaler))
    bound = None
    if calibration is not None:
        bound = float(np.abs(np.asarray(calibration, dtype=np.float64)).max())
    labels, task = _meaning(model)
    return layers, labels, task, bound


def _model(model: Any) -> list[Layer]:
    name = type(model).__name__
    if name == "OneVsRestClassifier":
        parts = [_model(part)[0] for part in model.estimators_]
        if not all(isinstance(part, Linear) and len(part.bias) == 1 for part in parts):
            raise InvalidHead(f"{name}: works around linear classifiers; what works: {_SKLEARN}")
        return [
            Linear(
                np.concatenate([p.arrays()["weight"] for p in parts]),
                np.concatenate([p.arrays()["bias"] for p in parts]),
            )
        ]
    if hasattr(model, "coefs_") and hasattr(model, "intercepts_"):
        if model.activation not in ("relu", "identity"):
            raise InvalidHead(f"{name}: activation {model.activation!r} is not supported; 'relu' and 'identity' are")
        layers: list[Layer] = []
        for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
            if layers and model.activation == "relu":
                layers.append(ReLU())
            layers.append(Linear(np.asarray(weight).T, bias))
        return layers
    if name not in _LINEAR or not hasattr(model, "coef_"):  # others have a coef_ that means something else
        raise InvalidHead(f"{name}: not fitted, or not supported; what works: {_SKLEARN}")
    weight = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    bias = np.broadcast_to(np.asarray(getattr(model, "intercept_", 0.0), dtype=np.float64).ravel(), (len(weight),))
    return [Linear(weight, bias)]


def _meaning(model: Any) -> tuple[list[str] | None, Task]:
    """Labels, where the model has them, and what its outputs mean."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        return None, Task.REGRESSION
    binarizer = getattr(model, "_label_binarizer", None)
    multilabel = getattr(model, "multilabel_", False) or str(getattr(binarizer, "y_type_", "")).startswith("multilabel")
    names = [str(label) for label in classes]
    return names, Task.MULTILABEL if multilabel else Task.CLASSIFICATION


def _scaling(scaler: Any) -> tuple[Floats, Floats]:
    """(factor, shift) of a scaler that maps x to factor * x + shift."""
    name = type(scaler).__name__
    if name == "StandardScaler":
        factor = np.ones(scaler.n_features_in_) if scaler.scale_ is None else 1.0 / scaler.scale_
        mean = scaler.mean_ if scaler.with_mean else np.zeros(scaler.n_features_in_)
        return factor, -mean * factor
    if name == "MinMaxScaler" and not scaler.clip:
        return scaler.scale_, scaler.min_
    if name == "MaxAbsScaler":
        return 1.0 / scaler.scale_, np.zeros_like(scaler.scale_)
    raise InvalidHead(f"{name}: not supported in a pipeline; what works: {_SKLEARN}")


def _scaled(layer: Layer, factor: Floats, shift: Floats) -> Linear:
    """`layer` after the scaling of its input: W (f x + s) + b = (W f) x + (b + W s)."""
    if not isinstance(layer, Linear):
        raise InvalidHead(f"{layer.kind}: a scaler needs a linear layer after it")
    return Linear(layer.weight * factor, layer.bias + layer.weight @ shift)


def from_torch(module: Any) -> list[Layer]:
    """Layers of a module; raises InvalidHead, naming the part, for what is not supported."""
    children = list(module) if type(module).__name__ == "Sequential" else [module]  # a layer may stand in it twice
    layers: list[Layer] = []
    for child in children:
        name = type(child).__name__
        if name == "Sequential":
            layers += from_torch(child)
        elif name == "Linear":
            bias = None if child.bias is None else _array(child.bias)
            layers.append(Linear(_array(child.weight), bias))
        elif name == "ReLU":
            layers.append(ReLU())
        elif name not in ("Identity", "Dropout"):
            raise InvalidHead(f"{name}: not supported; what works: {_TORCH}")
    return layers


def _array(parameter: Any) -> Floats:
    return np.asarray(parameter.detach().cpu().double().numpy(), dtype=np.float64)


def labels_for(layers: Sequence[Layer], labels: Sequence[str] | None, task: Task) -> list[str]:
    """`labels`, or "output 0", "output 1", ... as many as the layers and the task need."""
    outputs = next((len(layer.bias) for layer in reversed(layers) if isinstance(layer, Linear)), 0)
    return list(labels) if labels is not None else [f"output {k}" for k in range(task.labels(outputs))]
