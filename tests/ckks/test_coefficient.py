"""The coefficient plan end to end in one process: exactness, the stated bound, worst cases, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.blinding import Blinder, gaussian_integers, system_normal
from secure_infer.ckks.coefficient import CoefficientPlan, LinearEvaluator, pack_input, planner
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import AnswerRefused, InternalFault
from secure_infer.heads import Head, InputContract, Linear
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import load_query
from shared import linear_head, unit_rows


class Pair:
    """A client and a server of one head, without a wire between them."""

    def __init__(self, linear: Linear, contract: InputContract, privacy: Privacy = Privacy.BOTH_PRIVATE) -> None:
        self.plan = planner.choose(linear, contract, privacy=privacy)
        self.evaluator = LinearEvaluator(linear, self.plan)
        self.key = SecretKey(self.plan.parameters)
        public = keymaterial.parse(self.plan, self.key.upload(self.plan).data).public
        self.blind = None if public is None else Blinder(self.plan, public).blind

    def answers(self, x: np.ndarray) -> list[bytes]:
        query = [self.key.encrypt(p) for p in pack_input(self.plan, x)]
        return self.evaluator.evaluate(load_query(self.plan, query), self.blind)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return read_answer(self.plan, self.key.rows(self.plan), self.answers(x))


def worst_inputs(linear: Linear, contract: InputContract, count: int) -> np.ndarray:
    """Inputs on the contract's edge that stretch a logit furthest, both signs."""
    rows = []
    for weight in linear.weight[:count]:
        corner = np.where(weight < 0, -contract.bound, contract.bound)
        length = np.linalg.norm(weight)
        ball = weight / length * contract.largest_norm if length else corner
        if contract.norm is None or np.linalg.norm(corner) <= contract.largest_norm:
            ball = corner
        rows += [np.clip(ball, -contract.bound, contract.bound), -np.clip(ball, -contract.bound, contract.bound)]
    return np.array(rows)


def held(pair: Pair, linear: Linear, x: np.ndarray) -> None:
    for row in x:
        assert np.abs(pair(row) - linear(row[None])[0]).max() <= pair.plan.error_bound


SHAPES = [
    # features, outputs, row scale, bound, norm
    (1, 1, 1.0, 1.0, None),
    (3, 2, 1.0, 6.0, None),
    (8, 200, 1.0, 6.0, None),  # many answers: split, so that a forged key reads little
    (30, 1, 3.0, 6.0, None),
    (384, 21, 17.0, 1.0, 1.0),
    (384, 100, 1.0, 1.0, 1.0),  # K d > N
    (2047, 3, 1.0, 1.0, 1.0),
    (5000, 3, 5.0, 1.0, None),  # d > N: several ciphertexts
]


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize(("features", "outputs", "scale", "bound", "norm"), SHAPES)
def test_every_shape_holds_its_bound(
    features: int, outputs: int, scale: float, bound: float, norm: float | None, privacy: Privacy
) -> None:
    head = linear_head(features, outputs, scale=scale, bound=bound, norm=norm)
    linear = head.as_linear()
    assert linear is not None
    pair = Pair(linear, head.contract, privacy)
    held(pair, linear, worst_inputs(linear, head.contract, 3))


def test_three_thousand_features_two_hundred_outputs_at_bound_six() -> None:
    rng = np.random.default_rng(3)
    linear, contract = Linear(rng.normal(size=(200, 3000)) * 0.35, rng.normal(size=200)), InputContract(3000, 6.0)
    pair = Pair(linear, contract)
    assert pair.plan.smudging_bits >= 18
    assert pair.plan.error_bound <= 1e-3
    held(pair, linear, worst_inputs(linear, contract, 1))


@settings(max_examples=25, deadline=None)
@given(
    features=st.integers(1, 400),
    outputs=st.integers(1, 30),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    bound=st.sampled_from([0.1, 1.0, 6.0]),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_any_head_holds_its_bound_on_worst_inputs(
    features: int, outputs: int, scale: float, bound: float, zeros: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, features)) * scale / np.sqrt(features)
    weight[rng.random(weight.shape) < zeros] = 0
    linear, contract = Linear(weight, rng.normal(size=outputs)), InputContract(features, bound)
    held(Pair(linear, contract), linear, worst_inputs(linear, contract, 2))


@pytest.mark.parametrize("privacy", Privacy)
def test_zero_rows_and_zero_heads(privacy: Privacy) -> None:
    for weight in (np.zeros((3, 4)), np.diag([1.0, 0.0, 1.0, 0.0])[:3]):
        linear, contract = Linear(weight, [0.5, -0.25, 0.0]), InputContract(4, 1.0)
        held(Pair(linear, contract, privacy), linear, np.array([[1.0, -1.0, 1.0, -1.0], [0.0] * 4]))


def test_answers_have_the_stated_size_and_noise() -> None:
    head = linear_head(384, 10)
    linear = head.as_linear()
    assert linear is not None
    pair = Pair(linear, head.contract)
    x = unit_rows(1, 384)[0]
    answers = pair.answers(x)
    assert [len(a) for a in answers] == [pair.plan.product_bytes] * pair.plan.products
    assert sum(map(len, answers)) == pair.plan.answer_bytes
    errors = np.concatenate([pair(x) - linear(x[None])[0] for _ in range(60)])
    # The flood dominates: its deviation, within a chi-square interval at 1e-6.
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], errors.size) / errors.size
    assert low < (errors**2).mean() / pair.plan.flood**2 < 1.15 * high


def test_an_answer_outside_the_range_is_refused() -> None:
    linear, contract = Linear([[1.0, 1.0]], [0.0]), InputContract(2, 1.0)
    pair = Pair(linear, contract)
    beyond = pair.plan.answer_limit * 1.01 / 2
    with pytest.raises(AnswerRefused, match="range"):
        pair(np.array([beyond, beyond]))


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: [], lambda a: [a[0] + b"x"], lambda a: [b""]])
def test_malformed_answers_are_refused(change: object) -> None:
    pair = Pair(Linear([[1.0, 1.0]], [0.0]), InputContract(2, 1.0))
    with pytest.raises(AnswerRefused):
        read_answer(pair.plan, pair.key.rows(pair.plan), change(pair.answers(np.ones(2))))  # type: ignore[operator]


def test_a_private_plan_is_never_evaluated_without_a_blind() -> None:
    pair = Pair(Linear([[1.0, 1.0]], [0.0]), InputContract(2, 1.0))
    pair.blind = None
    with pytest.raises(InternalFault):
        pair.answers(np.ones(2))


def test_a_destroyed_key_is_of_no_more_use() -> None:
    pair = Pair(Linear([[1.0, 1.0]], [0.0]), InputContract(2, 1.0))
    rows = pair.key.rows(pair.plan)
    pair.key.destroy()
    assert not rows.any()
    for use in (lambda: pair.key.rows(pair.plan), lambda: pair.key.encrypt(np.zeros(2048, np.int64)), pair.key.prepare):
        with pytest.raises(InternalFault, match="destroyed"):
            use()


def test_secret_is_ternary_and_balanced() -> None:
    secret = SecretKey(seal.parameters(8192, (60,))).polynomial()
    counts = [(secret == v).sum() for v in (-1, 0, 1)]
    assert sum(counts) == 8192
    assert stats.chisquare(counts).pvalue > 1e-7


def test_gaussian_integers_are_gaussian_at_any_size() -> None:
    assert stats.kstest(system_normal(20_000), "norm").pvalue > 1e-7
    for bits in (4, 38, 50, 70):
        values = gaussian_integers(2.0**bits, 4000)
        scaled = np.array([v / 2.0**bits for v in values])
        assert stats.kstest(scaled, "norm").pvalue > 1e-7 or bits == 4
        low = np.array([v & 7 for v in values])
        if bits > 4:  # low bits stay random beyond a float's 53 bits
            assert stats.chisquare(np.bincount(low, minlength=8)).pvalue > 1e-7


def test_plans_are_equal_on_both_sides(heads: dict[str, Head]) -> None:
    linear = heads["wide"].as_linear()
    assert linear is not None
    one, two = (planner.choose(linear, heads["wide"].contract) for _ in range(2))
    assert (one, one.digest) == (two, two.digest)
    assert replace(one, flood=one.flood * 2).digest != one.digest
    assert isinstance(one, CoefficientPlan)
