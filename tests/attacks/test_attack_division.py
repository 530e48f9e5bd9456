"""Claim: a both-private answer holds the logits and nothing else of the model; an input-private answer hides nothing.

Adversary: the key holder, who knows the query (c0, c1) it sent. A bare product answers (w·c0, w·c1), so c1'/c1 in the
ring is w: every weight, exactly, from one answer, without even using the secret key.
Unprotected variants: the input-private plan, and the both-private plan without its blind.
"""

from __future__ import annotations

import numpy as np
import pytest
from adversary import CHANCE, SIGMAS, Case, agreement, divide, random_head, random_inputs, uniformity

from secure_infer.ckks.plan import Privacy

HEAD = random_head(16, 8, seed=1)
X = random_inputs(HEAD.contract, 1, seed=2)[0]


def quotient(case: Case, *, blinded: bool) -> np.ndarray:
    """c1' / c1 from one answer."""
    query = case.query(X)
    c1 = case.ring.residues(query)[1].copy()
    answered = case.evaluator.evaluate([query], case.blinder().blind if blinded else None)
    sent = case.c1_of(answered[0])
    if case.plan.answer_bits:  # lift the rounded coefficients back to the modulus
        prime, modulus = case.plan.first_prime, case.plan.answer_modulus
        sent = np.array([(int(v) * prime + modulus // 2) // modulus % prime for v in sent], np.uint64)
    return divide(case.ring, case.ring.ntt_residues(sent[None]), c1)


def test_one_input_private_answer_gives_every_weight() -> None:
    case = Case.of(HEAD, Privacy.INPUT_PRIVATE)
    assert (case.plan.answer_bits, case.plan.products) == (0, 1)
    found = quotient(case, blinded=False)
    assert np.array_equal(found[case.weight_positions()], case.weights)
    assert agreement(found[case.weight_positions()], case.weights) > SIGMAS  # the measure used below sees it
    found[case.weight_positions()] = 0
    assert not found.any()


def test_a_both_private_product_without_its_blind_gives_every_weight() -> None:
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    query = case.query(X)
    c1 = case.ring.residues(query)[1].copy()
    product = case.ring.multiply(query, case.evaluator._products[0][0])
    found = divide(case.ring, case.ring.residues(product)[1], c1)
    assert np.array_equal(found[case.weight_positions()], case.weights)


@pytest.mark.parametrize("exact", [True, False], ids=["exact c1", "rounded c1, as shipped"])
def test_both_private_answers_give_noise(exact: bool) -> None:
    """Blinding protects by itself: with c1 sent exactly the division fails just as it does with c1 rounded."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE, **({"answer_bits": 0} if exact else {}))
    found = quotient(case, blinded=True)
    assert uniformity(found, case.plan.first_prime, 64) > CHANCE
    assert abs(agreement(found[case.weight_positions()], case.weights)) < SIGMAS
    assert not (found[case.weight_positions()] == case.weights).any()  # each by chance: 2^-53


def test_many_both_private_answers_do_not_average_to_the_weights() -> None:
    """The same query 24 times: the mean of the quotients is noise, too."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    found = np.stack([quotient(case, blinded=True)[case.weight_positions()] for _ in range(24)])
    assert abs(agreement(found.sum(axis=0), case.weights)) < SIGMAS
