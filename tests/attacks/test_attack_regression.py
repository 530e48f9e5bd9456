"""Claim: the noise of both-private answers tells nothing practical about the weights (smudging).

Adversary: the key holder, who sends the same input again and again and knows the randomness e of every encryption. An
answer's evaluation noise is w·e, so a regression of the noise on e gives w.
Unprotected variant: the zero encryption without the Gaussian flood. The plan's own flood stops the regression and,
which takes less, the confirmation of a guessed model; three smudging bits do not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from adversary import SIGMAS, Case, agreement, random_head
from numpy.typing import NDArray

from secure_infer.ckks.plan import DEFAULT_SMUDGING, NOISE, Privacy

HEAD = random_head(16, 8, seed=5)


def packed_norm(case: Case) -> float:
    return float(np.linalg.norm(case.weights))


def flood_for(case: Case, bits: float) -> float:
    """The flood, in logits, that is 2**bits times the evaluation noise."""
    return 2.0**bits * NOISE * packed_norm(case) / (case.plan.input_scale * case.plan.weight_scale)


def ask(case: Case, flood: float, queries: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The noise (answers,) of real answers to x = 0, and the rows (answers, weights) of e that w was multiplied by."""
    plan, blinder = case.plan, case.blinder(flood)
    degree = plan.parameters.degree
    # Answer t is coefficient p_t of w·e: weight m meets e at p_t - m, negated where that wraps around.
    ends = np.array([plan.position(t) for t in range(plan.answers_per_product)])
    met = ends[:, None] - case.weight_positions().reshape(-1)[None, :]
    sign, met = np.where(met < 0, -1.0, 1.0), met % degree
    noise, rows = [], []
    for _ in range(queries):
        query = case.query(np.zeros(plan.features))
        rows.append(sign * case.phase(query)[met])
        noise.append(case.read(case.evaluator.evaluate([query], blinder.blind)) * plan.answer_unit)
    centred_noise = np.array(noise) - np.mean(noise, axis=0)  # the biases, which are constant, drop out
    centred_rows = np.array(rows) - np.mean(rows, axis=0)
    return centred_noise.reshape(-1), centred_rows.reshape(len(centred_noise) * len(ends), -1)


def regressed(case: Case, flood: float, queries: int) -> NDArray[np.float64]:
    """Weights as least squares finds them."""
    noise, rows = ask(case, flood, queries)
    return np.linalg.lstsq(rows, noise, rcond=None)[0].reshape(case.weights.shape)


def confirmation(case: Case, flood: float, queries: int) -> float:
    """How many standard deviations the noise agrees with a guessed model, here the right one."""
    noise, rows = ask(case, flood, queries)
    predicted = rows @ case.weights.reshape(-1).astype(np.float64)
    return float(noise @ predicted / np.linalg.norm(predicted) / noise.std())


def test_encryption_noise_is_what_the_plan_assumes() -> None:
    """The figures below rest on it: e is small and centred, with SEAL's standard deviation (3.24, here to 2%)."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    e = np.concatenate([case.phase(case.query(np.zeros(16))) for _ in range(40)])
    assert np.abs(e).max() <= 21
    # 82,000 values: the standard deviation's own error is 0.25%, so that 2% are eight sigma.
    assert abs(e.std() / NOISE - 1) < 0.02


def test_unflooded_answers_give_the_weights() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, answer_bits=0)
    found = regressed(case, 0.0, 120)
    # Left is the zero encryption's noise, 3.24 sqrt(4N/3 + 1) = 169: an error of about 169 / (3.24 sqrt(832)) = 1.8 in
    # weights near 2,400.
    assert np.linalg.norm(found - case.weights) < 0.01 * packed_norm(case)
    assert agreement(found, case.weights) > SIGMAS


@pytest.mark.parametrize("changes", [{}, {"answer_bits": 0}], ids=["as shipped", "exact c1"])
def test_the_plans_flood_stops_the_regression(changes: dict[str, int]) -> None:
    """With c1 sent exactly, too: it is the flood that protects, not the rounding after it."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, **changes)
    assert case.plan.smudging_bits >= DEFAULT_SMUDGING
    found = regressed(case, case.plan.flood, 300)
    assert abs(agreement(found, case.weights)) < SIGMAS
    # The estimate is the flood's: thousands of times larger than the weights.
    assert np.linalg.norm(found) > 1000 * packed_norm(case)


@pytest.mark.parametrize("bits", [2, 3])
def test_few_smudging_bits_let_a_guessed_model_be_confirmed(bits: int) -> None:
    """The score is sqrt(answers) / 2**bits, so that the queries needed grow as 4**bits."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, answer_bits=0)
    queries = 20 * 4**bits
    score = confirmation(case, flood_for(case, bits), queries)
    expected = math.sqrt(queries * HEAD.outputs / 4.0**bits)  # 12.6
    assert score > SIGMAS
    assert abs(score - expected) < SIGMAS + 0.05 * expected


def test_the_plans_flood_hides_even_a_guessed_model() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, answer_bits=0)
    assert abs(confirmation(case, case.plan.flood, 300)) < SIGMAS
    # By the law held above, a score of six takes 36 · 4^s answers.
    assert 36 * 4.0**case.plan.smudging_bits / HEAD.outputs > 1e11
