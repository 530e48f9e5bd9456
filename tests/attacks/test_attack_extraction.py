"""A limit, not a claim: d + 1 honest answers give a linear head away, whatever hides the rest.

Adversary: an ordinary user. Answers are linear in the weights, so that d + 1 independent ones determine them, to the
precision of the flood. Nothing here is malformed, and no blinding can tell it from use: only counting queries can.
"""

from __future__ import annotations

import numpy as np
from adversary import Served

from secure_infer_client import Client


def least_squares(x: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(weights (K, d), bias (K,)) that explain the answers."""
    design = np.column_stack([x, np.ones(len(x))])
    found = np.linalg.lstsq(design, logits, rcond=None)[0].T
    return found[:, :-1], found[:, -1]


def test_d_plus_one_chosen_answers_give_the_head(served: Served) -> None:
    linear = served.head.as_linear()
    assert linear is not None
    x = np.vstack([np.zeros(16), np.eye(16)])
    with Client(served.address, model=served.model) as client:
        weight, bias = least_squares(x, client.predict(x))
        flood, bound = client.plan.flood, client.plan.error_bound
    # A weight is the difference of two answers. Eight sigma of the flood, for 128 weights: below 1e-12.
    assert np.abs(weight - linear.weight).max() < 8 * np.sqrt(2) * flood + bound
    assert np.abs(bias - linear.bias).max() < 8 * flood + bound
    relative = np.linalg.norm(weight - linear.weight) / np.linalg.norm(linear.weight)
    assert relative < 0.01


def test_ordinary_answers_do_as_well(served: Served) -> None:
    """Random rows, twice as many as needed; the stolen head then agrees with the real one on others."""
    rng = np.random.default_rng(17)
    x, fresh = rng.uniform(-1, 1, (34, 16)), rng.uniform(-1, 1, (2000, 16))
    with Client(served.address, model=served.model) as client:
        weight, bias = least_squares(x, client.predict(x))
    stolen = (fresh @ weight.T + bias).argmax(axis=1)
    assert (stolen == served.head.evaluate(fresh).argmax(axis=1)).mean() > 0.98
