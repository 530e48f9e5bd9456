"""scikit-learn estimators over a client: what pipelines, copies and other tasks get."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import Head, ModelSpec
from secure_infer_client import Client
from secure_infer_client.estimators import EncryptedClassifier, EncryptedRegressor
from shared import linear_head, unit_rows


class Plain:
    """A client that evaluates by itself."""

    def __init__(self, head: Head) -> None:
        self.spec, self._head = ModelSpec.of("m", head), head

    def predict(self, x: Any) -> np.ndarray:
        return self._head.evaluate(self._head.contract.check(x))

    def decide(self, x: Any) -> list[str]:
        return self.spec.decide(self.predict(x))


def head(outputs: int, task: str = "classification") -> Head:
    base = linear_head(8, outputs)
    names = [f"label {number}" for number in range(2 if outputs == 1 and task == "classification" else outputs)]
    return Head(base.layers, labels=names, input_bound=1.0, task=task)


def test_over_a_real_server(address: str, heads: dict[str, Head]) -> None:
    x = unit_rows(5, 8)
    exact = heads["small"].evaluate(x)
    with Client(address, model="small") as client:
        pipeline = make_pipeline(FunctionTransformer(lambda rows: rows / 2), EncryptedClassifier(client))
        assert np.abs(pipeline.decision_function(2 * x) - exact).max() < 1e-3
        assert pipeline.predict(2 * x).tolist() == heads_labels(heads["small"], exact)
        assert pipeline.predict_proba(2 * x).sum(axis=1) == pytest.approx(1)


def heads_labels(served: Head, logits: np.ndarray) -> list[str]:
    return [served.labels[place] for place in logits.argmax(axis=1)]


def test_one_logit_is_two_classes() -> None:
    served = head(1)
    estimator = EncryptedClassifier(Plain(served))  # type: ignore[arg-type]
    x = unit_rows(6, 8)
    scores = estimator.decision_function(x)
    assert scores.shape == (6,)
    assert estimator.classes_.tolist() == ["label 0", "label 1"]
    assert (estimator.predict(x) == np.array(served.labels)[(scores > 0).astype(int)]).all()
    assert ((estimator.predict_proba(x)[:, 1] > 0.5) == (scores > 0)).all()
    assert estimator.score(x, estimator.predict(x)) == 1.0


def test_other_tasks() -> None:
    x = unit_rows(4, 8)
    several = EncryptedClassifier(Plain(head(3, "multilabel")))  # type: ignore[arg-type]
    assert (several.predict(x) == (several.decision_function(x) > 0)).all()
    for outputs, shape in ((1, (4,)), (2, (4, 2))):
        assert EncryptedRegressor(Plain(head(outputs, "regression"))).predict(x).shape == shape  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is for regression, expected classification or multilabel"):
        EncryptedClassifier(Plain(head(1, "regression")))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="expected regression"):
        EncryptedRegressor(Plain(head(3)))  # type: ignore[arg-type]


def test_it_is_fitted_as_it_is_and_copies_share_the_client() -> None:
    estimator = EncryptedClassifier(Plain(head(3)))  # type: ignore[arg-type]
    check_is_fitted(estimator)
    assert estimator.fit(unit_rows(2, 8), ["a", "b"]) is estimator
    assert clone(estimator).client is estimator.client
    assert estimator.n_features_in_ == 8
    for wrong in (unit_rows(2, 7), np.zeros(8), 3):
        with pytest.raises(InvalidInput, match="expected rows of 8 features"):
            estimator.fit(wrong)
    with pytest.raises(SettingsError, match="another process"):
        pickle.dumps(estimator)
