"""Batches of an affine head, both sides in one process: every shape holds its bound, nothing malformed is read."""

import math

import numpy as np
import pytest
from scipy import stats

from ckks.batch.pair import BatchPair, in_ball
from secure_infer.ckks.batch.evaluator import GROUP_BYTES
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer.ckks.plan import NOISE, Privacy
from secure_infer.errors import AnswerRefused, InternalFault, InvalidInput, MalformedRequest
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Network


def pair(
    weight: object, bias: object = None, *, bound: float = 1.0, norm: float | None = 1.0, **asked: object
) -> BatchPair:
    linear = Linear(weight, bias)
    contract = InputContract(linear.weight.shape[1], bound, norm)
    return BatchPair(choose(Network([], linear), contract, **asked))


@pytest.fixture(scope="module")
def small() -> BatchPair:
    return pair([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [0.25, -1.0])


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize(
    ("features", "outputs", "size", "bound", "norm"),
    [(1, 1, 1.0, 1.0, None), (7, 3, 20.0, 6.0, None), (60, 2, 5.0, 1.0, 1.0)],
)
def test_every_shape_holds_its_bound(
    features: int, outputs: int, size: float, bound: float, norm: float | None, privacy: Privacy
) -> None:
    rng = np.random.default_rng(features)
    weight, bias = rng.normal(size=(outputs, features)) * size / math.sqrt(features), rng.normal(size=outputs)
    both = pair(weight, bias, bound=bound, norm=norm, privacy=privacy)
    count = both.plan.records
    rows = in_ball(count, features, norm) if norm else rng.uniform(-bound, bound, (count, features))
    # The worst inputs of each output: the bound's corner, or the norm's direction.
    for k, row in enumerate(weight):
        worst = row * norm / np.linalg.norm(row) if norm else bound * np.sign(row)
        rows[2 * k], rows[2 * k + 1] = worst, -worst
    errors = both(rows) - (rows @ weight.T + bias)
    assert np.abs(errors).max() <= both.plan.error_bound <= 1e-3


@pytest.mark.parametrize("privacy", Privacy)
@pytest.mark.parametrize("weight", [np.zeros((2, 3)), np.diag([1.0, 0.0, 2.0])[:2]])
def test_zero_weights_rows_and_columns(weight: np.ndarray, privacy: Privacy) -> None:
    both = pair(weight, [0.5, -0.25], privacy=privacy)
    rows = in_ball(50, 3, 1.0)
    assert np.abs(both(rows) - (rows @ weight.T + [0.5, -0.25])).max() <= both.plan.error_bound


def test_part_of_a_batch_is_answered_as_such(small: BatchPair) -> None:
    for count in (1, 5):
        rows = in_ball(count, 3, 1.0)
        assert small(rows).shape == (count, 2)
        assert np.abs(small(rows) - (rows @ [[1.0, 0.0], [-2.0, 3.0], [0.5, 1.0]] + [0.25, -1.0])).max() < 1e-3


def test_answers_carry_the_stated_flood_and_smudging() -> None:
    both = pair([[3.0, 4.0]])
    errors = (both(np.zeros((both.plan.records, 2)))).ravel()
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], errors.size) / errors.size
    assert low < (errors**2).mean() / both.plan.flood**2 < 1.1 * high
    fast = pair([[3.0, 4.0]], privacy=Privacy.INPUT_PRIVATE)
    weight = np.linalg.norm(fast.program.weights) / np.abs(fast.program.weights[0, 0]) * 3.0
    noise = fast(np.zeros((fast.plan.records, 2))).std()
    assert abs(math.log2(noise / (NOISE * weight / fast.plan.input_scale))) < 0.1


def test_an_answer_outside_the_range_is_refused(small: BatchPair) -> None:
    rows = np.zeros((small.plan.records, 3))
    rows[-1, 1] = (
        9.2 / 3
    )  # a logit of 8.2, beyond the range of 8; a place that is not asked for is held to the range as well
    answers = small.answers(rows)
    with pytest.raises(AnswerRefused, match="range"):
        read_batch(small.plan, small.secret, answers, 1)


@pytest.mark.parametrize(
    "change", [lambda a: a[:-1], lambda a: [], lambda a: [a[0], a[1] + b"x"], lambda a: [a[0], b""]]
)
def test_malformed_answers_are_refused(small: BatchPair, change: object) -> None:
    answers = [bytes(small.plan.product_bytes)] * 2
    with pytest.raises(AnswerRefused):
        read_batch(small.plan, small.secret, change(answers), 1)  # type: ignore[operator]


def test_malformed_queries_are_refused(small: BatchPair) -> None:
    data = small.key.encrypt_batch(next(pack_batch(small.plan, np.ones((1, 3)))))
    for bad in (data[:-1], data + b"x", b"", b"\xff" * len(data)):
        with pytest.raises(MalformedRequest):
            read_ciphertext(small.plan, bad)


def test_batches_of_another_shape_are_refused(small: BatchPair) -> None:
    for shape in ((0, 3), (2, 4), (small.plan.records + 1, 3)):
        with pytest.raises(InvalidInput):
            next(pack_batch(small.plan, np.zeros(shape)))


def test_features_come_once_in_order_and_all_of_them(small: BatchPair) -> None:
    features = [
        read_ciphertext(small.plan, small.key.encrypt_batch(polynomial))
        for polynomial in pack_batch(small.plan, np.ones((1, 3)) / 2)
    ]
    seen = [0.0]
    evaluation = small.program.evaluation()
    for feature in features:
        with pytest.raises(InternalFault):
            next(evaluation.answers(small.blind))
        evaluation.add(feature)
        seen.append(evaluation.done)
    with pytest.raises(InternalFault):
        evaluation.add(features[0])
    answers = []
    for answer in evaluation.answers(small.blind):
        seen.append(evaluation.done)
        answers += [] if answer is None else [answer]
    assert len(answers) == 2
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_private_plan_is_never_evaluated_without_a_blind(small: BatchPair) -> None:
    evaluation = small.program.evaluation()
    for _ in range(3):
        evaluation.add(np.zeros((2, len(small.plan.parameters.data_primes), small.plan.parameters.degree), np.uint64))
    with pytest.raises(InternalFault, match="blinding"):
        list(evaluation.answers(None))


def test_an_evaluation_takes_the_memory_it_states(small: BatchPair) -> None:
    evaluation = small.program.evaluation()
    sums = sum(total._sums.nbytes for total in evaluation._sums.by_prime)
    assert sums <= small.program.memory <= sums + 2 * GROUP_BYTES
