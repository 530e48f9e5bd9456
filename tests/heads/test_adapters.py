"""Heads from scikit-learn and torch models: logits equal the model's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from secure_infer.errors import InvalidHead
from secure_infer.heads import Head, ModelSpec, Task

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)


@pytest.mark.parametrize("data", [IRIS, CANCER], ids=["three classes", "binary"])
@pytest.mark.parametrize(
    "scaler", [None, StandardScaler(), MinMaxScaler(), MaxAbsScaler(), StandardScaler(with_mean=False)]
)
@pytest.mark.parametrize("model", [LogisticRegression(max_iter=5000), LinearSVC(), RidgeClassifier(), SGDClassifier()])
def test_linear_classifiers(data: tuple, scaler: object, model: object) -> None:
    x, y = data
    fitted = make_pipeline(scaler, model).fit(x, y) if scaler is not None else model.fit(x, y)  # type: ignore[attr-defined]
    head = Head.from_sklearn(fitted, calibration=x)
    scores = fitted.decision_function(x)
    assert np.allclose(head.evaluate(x), scores.reshape(len(x), -1))
    assert head.labels == tuple(map(str, fitted.classes_))
    assert head.contract.bound == np.abs(x).max()
    assert head.as_linear() is not None


def test_regressors_and_networks() -> None:
    x, y = IRIS
    for model in (LinearRegression().fit(x, y), Ridge().fit(x, y)):
        assert np.allclose(Head.from_sklearn(model, input_bound=10.0).evaluate(x)[:, 0], model.predict(x))
    several = LinearRegression().fit(x, np.stack([y, -y], axis=1))
    head = Head.from_sklearn(several, input_bound=10.0, labels=["a", "b"])
    assert head.task is Task.REGRESSION
    assert np.allclose(head.evaluate(x), several.predict(x))
    assert ModelSpec.of("m", head).decide(np.array([[1.5, -2.0]])) == ["a 1.5; b -2"]
    network = make_pipeline(StandardScaler(), MLPClassifier((6, 5), max_iter=50, random_state=0)).fit(x, y)
    head = Head.from_sklearn(network, calibration=x)
    assert [layer.kind for layer in head.layers] == ["linear", "relu", "linear", "relu", "linear"]
    assert np.array_equal(head.evaluate(x).argmax(1), network.predict(x))


def test_multilabel() -> None:
    x, y = IRIS
    many = np.stack([y == 0, y > 0, x[:, 0] > 5.5], axis=1).astype(int)
    rest = OneVsRestClassifier(LogisticRegression(max_iter=2000)).fit(x, many)
    network = MLPClassifier((8,), max_iter=300, random_state=0).fit(x, many)
    for model in (rest, network):
        head = Head.from_sklearn(model, calibration=x)
        assert head.task is Task.MULTILABEL
        spec = ModelSpec.of("m", head)
        logits = head.evaluate(x)
        assert np.allclose(spec.probabilities(logits), model.predict_proba(x))
        assert np.array_equal(logits > 0, model.predict(x).astype(bool))
    assert spec.decide(np.array([[1.0, -1.0, 2.0]])) == ["0; 2"]
    assert spec.margins(np.array([[1.0, -0.25, 2.0]])).tolist() == [0.25]


def test_what_is_not_supported_is_named() -> None:
    x, y = IRIS
    unsupported = [
        (KMeans(2, n_init=1).fit(x), "KMeans"),
        (LogisticRegression(), "not fitted"),
        (make_pipeline(PolynomialFeatures(), LogisticRegression(max_iter=9)).fit(x, y), "PolynomialFeatures"),
        (MLPClassifier((3,), activation="tanh", max_iter=5).fit(x, y), "tanh"),
    ]
    for model, word in unsupported:
        with pytest.raises(InvalidHead, match=word):
            Head.from_sklearn(model, calibration=x)
    with pytest.raises(InvalidHead, match="input_bound"):
        Head.from_sklearn(LogisticRegression(max_iter=500).fit(x, y))


def test_torch_modules() -> None:
    torch = pytest.importorskip("torch", reason="torch comes with the extra `train`")
    nn = torch.nn
    module = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Dropout(0.5), nn.Linear(6, 2, bias=False)
    ).eval()
    head = Head.from_torch(module, labels=["a", "b"], input_bound=3.0)
    x = np.random.default_rng(0).normal(size=(7, 4))
    with torch.no_grad():
        assert np.allclose(head.evaluate(x), module(torch.tensor(x, dtype=torch.float32)).numpy(), atol=1e-5)
    with pytest.raises(InvalidHead, match="Tanh"):
        Head.from_torch(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), input_bound=1.0)

    relu = nn.ReLU()
    shared = nn.Sequential(nn.Linear(4, 5), relu, nn.Linear(5, 5), relu, nn.Linear(5, 2))
    assert [k.kind for k in Head.from_torch(shared, input_bound=1.0).layers] == ["linear", "relu"] * 2 + ["linear"]


def test_a_coefficient_that_means_something_else_is_refused() -> None:
    x, y = IRIS
    for model in (SVC(kernel="linear").fit(x, y), PoissonRegressor().fit(x, y), PLSRegression().fit(x, y)):
        with pytest.raises(InvalidHead, match="not supported"):
            Head.from_sklearn(model, calibration=x)
