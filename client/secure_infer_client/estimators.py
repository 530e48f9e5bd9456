"""scikit-learn estimators that ask a server: in a pipeline, a search or a report they stand where a fitted model would.

    pipeline = make_pipeline(StandardScaler().fit(known), EncryptedClassifier(client))
    pipeline.predict(rows)          # scaled here, encrypted here, evaluated there

The served model was trained before; `fit` checks that rows have its width and changes nothing. scikit-learn is not part of the
light installation: `pip install scikit-learn`.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import ModelSpec, Task
from secure_infer_client.client import Client


class _Served(BaseEstimator):  # type: ignore[misc]
    """client: an open `Client`, which stays its caller's to close; copies of an estimator share it."""

    _tasks: tuple[Task, ...]

    def __init__(self, client: Client) -> None:
        self.client = client
        if self._spec.task not in self._tasks:
            raise SettingsError(
                f"{type(self).__name__}: model {self._spec.name!r} is for {self._spec.task}, expected {' or '.join(self._tasks)}"
            )

    @property
    def _spec(self) -> ModelSpec:
        return self.client.spec

    @property
    def n_features_in_(self) -> int:
        return self._spec.contract.features

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Check that rows X (B, d) have the served model's width; raises InvalidInput. Nothing is learned or sent."""
        width = np.shape(X)[-1] if np.ndim(X) else 0
        if np.ndim(X) != 2 or width != self.n_features_in_:
            raise InvalidInput(f"X: expected rows of {self.n_features_in_} features, got shape {np.shape(X)}")
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return type(self)(self.client)

    def __getstate__(self) -> Any:
        raise SettingsError(
            "an encrypted estimator cannot be stored or sent to another process; make a new Client there"
        )


class EncryptedClassifier(ClassifierMixin, _Served):  # type: ignore[misc]
    """A served classifier. `classes_` are its labels; of several labels at once, `predict` gives an indicator (B, K)."""

    _tasks = (Task.CLASSIFICATION, Task.MULTILABEL)

    @property
    def classes_(self) -> NDArray[np.str_]:
        return np.array(self._spec.labels)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits (B, K) of rows X (B, d), or (B,) of a binary model, as scikit-learn has them."""
        logits = self.client.predict(X)
        return logits[:, 0] if self._is_binary else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities (B, labels), in the order of `classes_`."""
        logits = self.client.predict(X)
        return self._spec.probabilities(logits)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """One label a row; works where answers are labels alone, too, unless a row may have several."""
        if self._spec.task is Task.MULTILABEL:
            return np.asarray(self.client.predict(X) > 0).astype(int)
        return np.array(self.client.decide(X))

    @property
    def _is_binary(self) -> bool:
        return self._spec.outputs == 1 and self._spec.task is Task.CLASSIFICATION


class EncryptedRegressor(RegressorMixin, _Served):  # type: ignore[misc]
    """A served regression."""

    _tasks = (Task.REGRESSION,)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Numbers (B,) of rows X (B, d), or (B, K) of a model with several."""
        found = self.client.predict(X)
        return found[:, 0] if found.shape[1] == 1 else found
