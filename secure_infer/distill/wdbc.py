"""The task "malignant or benign, from thirty measurements": a binary head on plain numbers, no text and no embedder.

Source: Breast Cancer Wisconsin (Diagnostic), Wolberg, Mangasarian, Street and Street (1995), CC BY 4.0, as packaged by
scikit-learn: 569 fine needle aspirates, each with mean, standard error and worst value of ten nuclear features.
Standardisation is folded into the weights, so the head takes the measurements as they are, in their own units. Needs
scikit-learn, and no torch.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.distill.evaluate import calibration_error
from secure_infer.distill.ranges import MARGIN, with_margin
from secure_infer.distill.tradeoff import cost
from secure_infer.heads import Head, InputContract, Linear

NAME = "wdbc"
LABELS = ("benign", "malignant")
FOLDS = 10
_HELD_OUT = 0.2
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Made:
    """The head, and the rows held out from it: x (B, 30) in raw units, their labels, and the names of the columns."""

    head: Head
    x: Floats
    labels: tuple[str, ...]
    features: tuple[str, ...]

    def csv(self) -> str:
        """The held-out rows: a header of feature names and `label`, then one row a line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.features, "label"])
        writer.writerows([*map(repr, row.tolist()), label] for row, label in zip(self.x, self.labels, strict=True))
        return text.getvalue()


def build(seed: int) -> Made:
    """Train on 80% of the rows, stratified; cross-validate the recipe on all. Deterministic for a seed.

    Nothing is tuned: logistic regression with scikit-learn's default penalty on standardised features.
    Raises ModuleNotFoundError without scikit-learn.
    """
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    x, y = np.asarray(data.data, dtype=np.float64), 1 - np.asarray(data.target)  # the package has malignant = 0
    features = tuple(str(name) for name in data.feature_names)
    recipe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    random = seed % 2**32
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=random).split(x, y))
    held_back = cross_val_predict(recipe, x, y, cv=folds, method="decision_function")
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=_HELD_OUT, stratify=y, random_state=random)
    recipe.fit(train_x, train_y)
    bound, norm = with_margin(np.abs(train_x).max()), with_margin(np.linalg.norm(train_x, axis=1).max())

    def head(facts: dict[str, Any]) -> Head:
        return Head.from_sklearn(recipe, input_bound=bound, input_norm=norm, labels=LABELS, facts=facts)

    bare = head({})
    standard = Linear(recipe[-1].coef_, recipe[-1].intercept_)
    scaled = np.abs(recipe[0].transform(train_x))
    standard_norm = with_margin(np.linalg.norm(scaled, axis=1).max())
    facts = {
        "task": "malignant or benign, from thirty measurements of cell nuclei",
        "features": list(features),
        "seed": seed,
        "rows": {"train": len(train_y), "test": len(test_y)},
        "margin": MARGIN,
        "packages": {name: version(name) for name in ("numpy", "scikit-learn")},
        "cross_validation": _figures(held_back, y)
        | {"folds": FOLDS, "accuracy_sd": _spread(held_back, y, [check for _, check in folds])},
        "test": _figures(bare.evaluate(test_x)[:, 0], test_y),
        "majority_class_accuracy": round(float(1 - y.mean()), 5),
        "cost": _cost(bare),
        "cost_standardised": cost(
            standard, InputContract(len(features), with_margin(scaled.max()), standard_norm), smudging=18
        ),
        "largest_logit_seen": round(float(np.abs(bare.evaluate(x)).max()), 2),
    }
    return Made(head(facts), test_x, tuple(LABELS[i] for i in test_y), features)


def _cost(head: Head) -> dict[str, Any]:
    linear = head.as_linear()
    if linear is None:  # not reached: the recipe is affine
        raise TypeError("expected an affine head")
    return cost(linear, head.contract, smudging=18)


def _figures(logits: Floats, y: NDArray[Any]) -> dict[str, float]:
    """Accuracy, sensitivity (malignant found), specificity (benign found) and calibration error of logits (B,)."""
    found = logits > 0
    two = np.stack([np.zeros_like(logits), logits], axis=1)
    return {
        "rows": len(y),
        "accuracy": round(float((found == (y == 1)).mean()), 5),
        "sensitivity": round(float(found[y == 1].mean()), 5),
        "specificity": round(float((~found)[y == 0].mean()), 5),
        "calibration_error": round(calibration_error(two, y.astype(np.int64)), 5),
    }


def _spread(logits: Floats, y: NDArray[Any], folds: list[NDArray[Any]]) -> float:
    return round(float(np.std([((logits[fold] > 0) == (y[fold] == 1)).mean() for fold in folds], ddof=1)), 5)


def card(head: Head) -> str:
    """The card of the head, in Markdown; every figure in it is among `head.facts`."""
    facts: dict[str, Any] = head.facts
    own, other, cross, test = facts["cost"], facts["cost_standardised"], facts["cross_validation"], facts["test"]
    names = "\n".join(f"{i + 1}. {name}" for i, name in enumerate(facts["features"]))
    return f"""# {NAME}

Breast mass, {head.labels[1]} or {head.labels[0]}, from {head.features} measurements of cell nuclei in a fine needle
aspirate. A binary head on plain numbers: one logit, no text, no embedder.

| | |
| --- | --- |
| layers | {head.features} -> linear -> {head.outputs} |
| digest | `{head.digest}` |
| input | {head.features} measurements in their own units, in the order of the list below |
| input bounds | none above {head.contract.bound:g}, L2 norm of a row at most {head.contract.norm:g} |
| answer | sigmoid(logit) is the probability of {head.labels[1]} |
| largest logit of any accepted input | {own["range"]:,.0f} |
| largest logit seen | {facts["largest_logit_seen"]:g} |
| encrypted evaluation, model private too | {_plan(own)} |

## Accuracy

| | rows | accuracy | sensitivity | specificity | calibration error |
| --- | --- | --- | --- | --- | --- |
| {cross["folds"]}-fold cross-validation of the recipe | {_row(cross)} |
| this head, on rows held out from it | {_row(test)} |

Over folds, accuracy has a standard deviation of {cross["accuracy_sd"]:.1%}. Always answering {head.labels[0]} scores
{facts["majority_class_accuracy"]:.1%}. Sensitivity is the share of malignant masses found. One held-out row is
{1 / test["rows"]:.1%}; these rows ship as `wdbc_test.csv` in `secure_infer_client.samples`.

## Data and training

Breast Cancer Wisconsin (Diagnostic), W. Wolberg, O. Mangasarian, N. Street and W. Street, 1995, UCI Machine Learning
Repository, CC BY 4.0, as packaged by scikit-learn {facts["packages"]["scikit-learn"]}. Anonymous measurements of
{facts["rows"]["train"] + facts["rows"]["test"]} masses. Logistic regression with the default penalty on standardised
features; nothing was tuned. {facts["rows"]["train"]} rows trained this head, {facts["rows"]["test"]} were held out.

`secure-infer distill --task wdbc --seed {facts["seed"]}` makes this file again; other versions may differ in the last
digits, hence in the digest.

## Raw units

The standardisation is folded into the weights, so that who asks needs nothing but the measurements. That costs range:
features differ by five orders of magnitude, and one bound covers them all. The bounds are {facts["margin"]:g} times the
largest training value and norm. On features that the client standardises the same classifier would need
{_plan(other)}. It would also hand out the training means and deviations.

## Limits

- A demonstration of encrypted scoring of numeric features. Not a medical device, not validated for any clinical decision.
- One data set, measured in one way: expect less elsewhere.
- Inputs within the bounds but far from the training data get confident answers.
- {head.features + 1} distinct answers give the {head.features} weights and the bias away, encrypted or not.

## Features

{names}

Licence of the head: Apache-2.0.
"""


def _plan(cost: dict[str, Any]) -> str:
    return (
        f"{cost['plan']}: {cost['smudging_bits']} smudging bits, logit error at most {cost['error_bound']:.1e}, "
        f"{cost['bytes_up']:,} bytes up, {cost['bytes_down']:,} down"
    )


def _row(figures: dict[str, Any]) -> str:
    shares = ("accuracy", "sensitivity", "specificity", "calibration_error")
    return " | ".join([f"{figures['rows']}", *(f"{figures[name]:.1%}" for name in shares)])
