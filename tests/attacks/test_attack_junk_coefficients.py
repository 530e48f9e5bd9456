"""Claim: coefficients of c0 that carry no answer never leave the server, and c1 of an answer is fresh and uniform.

Adversary: the key holder, who sends the unit vector: the product's other coefficients are then the weights themselves,
and no zero encryption hides them from the holder of its key.
Unprotected variants: an answer with all of c0, blinded and flooded; an answer without a blind.
"""

from __future__ import annotations

import numpy as np
from adversary import CHANCE, SIGMAS, Case, answer_values, random_head, random_inputs, uniformity

from secure_infer.ckks.plan import Privacy

HEAD = random_head(16, 5, seed=3)
UNIT = np.eye(16)[0]


def test_all_of_c0_would_give_the_weights_through_blind_and_flood() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    total = case.blinder().blind()
    case.ring.add_to(total, case.ring.multiply(case.query(UNIT), case.evaluator._products[0][0]))
    # Decrypted in full, coefficient p - i is w_(k,i) · input_scale, and only the answers (i = 0) are flooded.
    found = np.rint(case.phase(total) / case.plan.input_scale).astype(np.int64)[case.weight_positions()]
    assert np.array_equal(found[:, 1:], case.weights[:, 1:])
    assert not np.array_equal(found[:, 0], case.weights[:, 0])


def test_only_answers_leave_and_padding_is_zero() -> None:
    """Five rows as 3 + 2: the first product pads one coefficient to an even number, the second two."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, answers_per_product=3)
    plan = case.plan
    assert (plan.products, plan.padded_answers) == (2, 4)
    answers = case.evaluator.evaluate([case.query(UNIT)], case.blinder().blind)
    for product, answer in enumerate(answers):
        assert len(answer) == (plan.padded_answers + plan.parameters.degree) * plan.answer_bits // 8
        kept = answer_values(plan, answer)[: plan.padded_answers]
        rows = len(plan.rows(product))
        assert kept[:rows].any()  # all zero by chance: 2^-48
        assert not kept[rows:].any()
    assert len(b"".join(answers)) == plan.answer_bytes


def test_c1_of_an_answer_is_uniform_and_independent_of_the_query() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    modulus, blinder = case.plan.answer_modulus, case.blinder()
    query = case.query(random_inputs(HEAD.contract, 1, seed=4)[0])

    def run() -> np.ndarray:
        return case.c1_of(case.evaluator.evaluate([query], blinder.blind)[0]).astype(np.int64)

    runs = np.stack([run() for _ in range(32)])
    assert uniformity(runs, modulus, 256) > CHANCE
    # The difference of two answers to one query would be zero without a blind; it is uniform.
    assert uniformity((runs[0::2] - runs[1::2]) % modulus, modulus, 256) > CHANCE
    # Coefficient by coefficient: products of independent uniform values, normal to three digits over 32,768 terms.
    centred = (runs - modulus / 2) / (modulus / np.sqrt(12))
    score = (centred[0::2] * centred[1::2]).sum() / np.sqrt(centred[0::2].size)
    assert abs(score) < SIGMAS


def test_without_a_blind_c1_repeats() -> None:
    case = Case.of(HEAD, Privacy.INPUT_PRIVATE)
    query = case.query(UNIT)
    first, second = (case.evaluator.evaluate([query], None) for _ in range(2))
    assert first == second
