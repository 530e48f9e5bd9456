"""Batches of heads of degree 3 and 4 and of two hidden layers, both sides in one process."""

import math

import numpy as np
import pytest

from ckks.batch.pair import BatchPair, in_ball
from secure_infer.ckks.batch.deep_form import DeepForm
from secure_infer.ckks.batch.planner import choose, plan_batch
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import InputContract, Linear, Polynomial, Square
from secure_infer.heads.network import Network

BALL = InputContract(5, 1.0, 1.0)


def linear(rng: np.random.Generator, outputs: int, features: int) -> Linear:
    return Linear(rng.normal(size=(outputs, features)) / math.sqrt(features), rng.normal(size=outputs) * 0.3)


def power(degree: int, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    curve = Polynomial(rng.normal(size=(4, degree + 1)) / 2)
    return Network.of([linear(rng, 4, 5), curve, linear(rng, 2, 4)])


def twice(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    curves = [Polynomial(rng.normal(size=(n, 3)) / 2) for n in (4, 3)]
    return Network.of([linear(rng, 4, 5), curves[0], linear(rng, 3, 4), curves[1], linear(rng, 2, 3)])


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize("head", [power(3), power(4), twice()], ids=["cubic", "quartic", "two layers"])
def test_every_shape_holds_its_bound(head: Network, privacy: Privacy) -> None:
    both = BatchPair(choose(head, BALL, privacy=privacy, error=1e-2, smudging=8))
    assert both.plan.level < len(both.plan.parameters.data_primes)
    rows = in_ball(both.plan.records, 5, 1.0)
    rows[::9] = head.hidden[0].weight[0] / np.linalg.norm(head.hidden[0].weight[0])
    assert np.abs(both(rows) - head(rows)).max() <= both.plan.error_bound <= 1e-2


def test_noise_stays_below_what_the_planner_reckons_with() -> None:
    for head in (power(4), twice()):
        asked = {"error": 1e-2, "smudging": 8}
        flooded = choose(head, BALL, **asked).plan
        both = BatchPair(choose(head, BALL, privacy=Privacy.INPUT_PRIVATE, error=1e-2))
        row = in_ball(1, 5, 1.0)
        noise = both(np.repeat(row, both.plan.records, axis=0))
        assert (noise - noise.mean(axis=0)).std(axis=0).max() < 1e-2 / 20 / 6
        assert flooded.flood / 2.0**flooded.smudging_bits <= flooded.error_bound


def test_zero_weights_rows_and_columns() -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(4, 5)), rng.normal(size=(2, 4))
    first[1] = first[:, 2] = last[0] = last[:, 3] = 0
    curve = rng.normal(size=(4, 5))
    curve[0] = 0
    heads = [
        Network.of([Linear(first), Polynomial(curve), Linear(last, [1.0, 0.0])]),
        Network.of([Linear(first), Square(), Linear(last, [1.0, 0.0]), Square(), Linear([[1.0, 1.0]])]),
    ]
    for head in heads:
        both = BatchPair(choose(head, BALL, error=5e-2, smudging=2))
        rows = in_ball(20, 5, 1.0)
        assert np.abs(both(rows) - head(rows)).max() <= both.plan.error_bound


@pytest.mark.parametrize("smudging", [2, 10, 18])
def test_plans_are_found_in_several_rings(smudging: int) -> None:
    for head in (power(3), power(4), twice()):
        found = [c.program.plan for c in plan_batch(head, BALL, error=1e-2, smudging=smudging) if c.program is not None]
        assert len(found) >= 2
        assert all(plan.smudging_bits >= smudging and plan.error_bound <= 1e-2 for plan in found)


def test_deeper_heads_are_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    cubic = Polynomial(rng.normal(size=4))
    with pytest.raises(UnsupportedHead, match="two of degree at most 2"):
        DeepForm(Network.of([linear(rng, 3, 5), cubic, linear(rng, 3, 3), cubic, linear(rng, 1, 3)]), BALL)
