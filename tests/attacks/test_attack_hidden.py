"""Claim: answers of heads with hidden layers tell a key holder no more of the model than the logits.

Adversary: the key holder. All that a server does to a query but for blinding is deterministic, so whoever guesses the
model can repeat it on the same ciphertexts and knows the evaluation noise exactly: key switching, rounding and all.
Unprotected variants: the zero encryption without a flood confirms a guessed model at once, and one smudging bit in a few
hundred answers; the plan's own flood does not. Without the zero encryption, c1 itself confirms the guess.
What stays open, here as everywhere: slots that are no row of features read the layers behind them, whatever the flood.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from adversary import SIGMAS
from numpy.typing import NDArray

from secure_infer.ckks import keymaterial
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.embedding import to_coefficients
from secure_infer.ckks.plan import DEFAULT_SMUDGING, Privacy
from secure_infer.ckks.slots import SlotEvaluator, pack_input
from secure_infer.ckks.slots.planner import Demand, Planner, layouts
from secure_infer.ckks.slots.program import Program
from secure_infer.heads import InputContract, Linear, Square
from secure_infer.heads.network import Network
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import load_query

FEATURES, UNITS, OUTPUTS = 8, 4, 2


def network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    first, last = rng.normal(size=(UNITS, FEATURES)), rng.normal(size=(OUTPUTS, UNITS))
    return Network.of([Linear(first, rng.normal(size=UNITS)), Square(), Linear(last)])


class HiddenCase:
    """A small head under the plan that the planner makes for it, a key holder, and a guess of the model."""

    def __init__(self) -> None:
        planner = Planner(network(1), InputContract(FEATURES, 1.0, 1.0))
        layout = next(layout for layout in layouts(planner.network, 8192) if layout.inputs == 1)
        self.network, self.program = planner.network, planner.program(layout, Demand())
        # Rounding c1 after the flood is no part of the protection: the adversary is given all of it.
        self.plan = replace(self.program.plan, answer_bits=0)
        self.key = SecretKey(self.plan.parameters)
        self.material = keymaterial.parse(self.plan, self.key.upload(self.plan).data)
        self.keys = keymaterial.load(self.plan, self.material)
        self.evaluator = SlotEvaluator(self.network, Program(self.plan, self.program.layers))

    @cached_property
    def exact(self) -> SlotEvaluator:
        """The adversary's own evaluation with the model guessed right: no blind, no flood."""
        bare = replace(self.plan, privacy=Privacy.INPUT_PRIVATE, flood=0.0, smudging_bits=0)
        return SlotEvaluator(self.network, Program(bare, self.program.layers))

    @cached_property
    def evaluation_noise(self) -> float:
        """Standard deviation of a logit, as the plan reckons it at its worst input (rounded: s is floored)."""
        return float(self.plan.flood / 2.0**self.plan.smudging_bits)

    def ask(self, flood: float, queries: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits (queries, K) of real answers to one row, and those of the guess on the same ciphertexts."""
        public = self.material.public
        assert public is not None
        blinder = Blinder(replace(self.plan, flood=flood), public)
        rows, x = self.key.rows(self.plan), np.full(FEATURES, FEATURES**-0.5)
        real, guessed = [], []
        for _ in range(queries):
            query = load_query(self.plan, [self.key.encrypt(p) for p in pack_input(self.plan, x)])
            real.append(read_answer(self.plan, rows, self.evaluator.evaluate(query, blinder.blind, self.keys)))
            guessed.append(read_answer(self.plan, rows, self.exact.evaluate(query, None, self.keys)))
        return np.array(real), np.array(guessed)

    def confirmation(self, flood: float, queries: int) -> float:
        """How many standard deviations the answers' noise agrees with the guess's."""
        real, guessed = (values - values.mean(axis=0) for values in self.ask(flood, queries))
        return float((real * guessed).sum() / np.linalg.norm(guessed) / real.std())


CASE = HiddenCase()


def test_unflooded_answers_confirm_a_guessed_model() -> None:
    real, guessed = (values - values.mean(axis=0) for values in CASE.ask(0.0, 40))
    assert np.corrcoef(real.ravel(), guessed.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_one_smudging_bit_confirms_it_too() -> None:
    assert CASE.confirmation(guessed_noise() * 2.0, 450) > SIGMAS


def test_the_plans_flood_hides_even_a_guessed_model() -> None:
    assert CASE.plan.smudging_bits >= DEFAULT_SMUDGING
    assert abs(CASE.confirmation(CASE.plan.flood, 150)) < SIGMAS
    # A score of six takes 36 · 4^s answers.
    assert 36 * 4.0**CASE.plan.smudging_bits / OUTPUTS > 1e11


def guessed_noise() -> float:
    """The evaluation noise of this row, in logits, measured."""
    _, guessed = CASE.ask(0.0, 30)
    return float(guessed.std(axis=0).max())


def test_the_reckoned_noise_is_not_below_the_measured() -> None:
    assert guessed_noise() < 2 * CASE.evaluation_noise


def test_without_a_zero_encryption_c1_confirms_the_guess() -> None:
    """Deterministic: equal bytes but for the flooded logits. With the blind nothing agrees."""
    plan, x = CASE.plan, np.zeros(FEATURES)
    query = load_query(plan, [CASE.key.encrypt(p) for p in pack_input(plan, x)])
    public = CASE.material.public
    assert public is not None
    (bare,) = CASE.exact.evaluate(query, None, CASE.keys)
    (again,) = CASE.exact.evaluate(query, None, CASE.keys)
    (blinded,) = CASE.evaluator.evaluate(query, Blinder(plan, public).blind, CASE.keys)
    assert bare == again
    same = np.mean(np.frombuffer(bare, np.uint8) == np.frombuffer(blinded, np.uint8))
    assert same < 0.01  # one in 256 by chance


def test_malformed_slots_read_a_hidden_layer_whatever_the_flood() -> None:
    """The documented limit: a query that is no row of features, here column 0 alone and large, beyond any contract."""
    plan, public = CASE.plan, CASE.material.public
    assert public is not None
    blinder, rows, size = Blinder(plan, public), CASE.key.rows(plan), 500.0
    answers = []
    for sign in (-1.0, 1.0):
        slots = np.zeros(plan.slots, np.complex128)
        slots[0] = sign * size  # one slot of the first copy of the first unit
        polynomial = np.rint(to_coefficients(slots) * plan.input_scale).astype(np.int64)
        query = load_query(plan, [CASE.key.encrypt(polynomial)])
        answers.append(read_answer(plan, rows, CASE.evaluator.evaluate(query, blinder.blind, CASE.keys)))
    # y = sum_h v_h (t_h² + 2 b_h t_h): the odd part is the product 2 v b W of one unit, not a function of any row.
    layer, output = CASE.network.hidden[0], CASE.network.output
    found = (answers[1] - answers[0]) / (2 * size)
    # The slot is one of all those that a row fills for this unit and column.
    truth = output.weight[:, 0] * layer.coefficients[0, 1] * layer.weight[0, 0]
    scale = found @ truth / (truth @ truth)
    assert np.linalg.norm(found - scale * truth) < 0.05 * np.linalg.norm(found)
