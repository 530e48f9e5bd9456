"""Batches of heads with a hidden layer, both sides in one process, against the exact head and against integers."""

import math
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ckks.batch.pair import BatchPair, in_ball
from secure_infer.ckks import seal
from secure_infer.ckks.batch import keys
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.batch.quadratic import imaginary_units
from secure_infer.ckks.batch.quadratic_planner import QuadraticForm
from secure_infer.ckks.plan import NOISE, Privacy
from secure_infer.ckks.residues import Residues
from secure_infer.errors import AnswerRefused
from secure_infer.heads import InputContract, Linear, Polynomial, Square
from secure_infer.heads.network import Network

BALL = InputContract(5, 1.0, 1.0)


def network(
    features: int, units: int, outputs: int, *, seed: int = 0, size: float = 1.0, curve: object = None
) -> Network:
    rng = np.random.default_rng(seed)
    first = Linear(rng.normal(size=(units, features)) / math.sqrt(features), rng.normal(size=units) * 0.3)
    last = Linear(rng.normal(size=(outputs, units)) * size / math.sqrt(units), rng.normal(size=outputs))
    middle = Polynomial(rng.normal(size=(units, 3))) if curve is None else curve
    return Network.of([first, middle, last])


@pytest.fixture(scope="module")
def small() -> BatchPair:
    return BatchPair(choose(network(5, 4, 2), BALL, smudging=10))


@pytest.mark.parametrize(
    ("features", "units", "outputs", "bound", "norm", "curve", "asked"),
    [
        (1, 1, 1, 1.0, None, Square(), {}),
        (5, 4, 2, 1.0, 1.0, None, {"smudging": 20}),
        (3, 9, 2, 2.0, None, None, {"error": 1e-2, "smudging": 2}),
        (4, 2, 3, 1.0, 1.0, Polynomial([0.5, 1.0, 1e-6]), {"privacy": Privacy.INPUT_PRIVATE}),
    ],
)
def test_every_shape_holds_its_bound(
    features: int, units: int, outputs: int, bound: float, norm: float | None, curve: object, asked: dict
) -> None:
    head = network(features, units, outputs, size=3.0, curve=curve)
    both = BatchPair(choose(head, InputContract(features, bound, norm), **asked))
    rng = np.random.default_rng(1)
    rows = rng.uniform(-bound, bound, (both.plan.records, features))
    if norm:
        rows = in_ball(len(rows), features, norm)
    rows[::7] = np.sign(rows[::7]) * (norm / math.sqrt(features) if norm else bound)
    assert np.abs(both(rows) - head(rows)).max() <= both.plan.error_bound <= asked.get("error", 1e-3)


@pytest.mark.parametrize("privacy", Privacy)
def test_zero_weights_rows_and_columns(privacy: Privacy) -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(4, 5)), rng.normal(size=(3, 4))
    first[1] = first[:, 2] = last[0] = last[:, 3] = 0
    for head in (
        Network.of([Linear(first), Square(), Linear(last, [1.0, 0.5, 0.0])]),
        Network.of([Linear(first, np.ones(4)), Square(), Linear(np.zeros((1, 4)))]),
    ):
        both = BatchPair(choose(head, BALL, privacy=privacy, error=1e-2, smudging=2))
        rows = in_ball(20, 5, 1.0)
        assert np.abs(both(rows) - head(rows)).max() <= both.plan.error_bound


def test_part_of_a_batch_uses_both_halves_of_a_slot(small: BatchPair) -> None:
    head, half = network(5, 4, 2), small.plan.records // 2
    for count in (1, half + 3):
        rows = in_ball(count, 5, 1.0)
        found = small(rows)
        assert found.shape == (count, 2)
        assert np.abs(found - head(rows)).max() <= small.plan.error_bound


def returned(work: Generator[None, None, Residues]) -> Residues:
    """What a computation returns in the end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_parts_are_exactly_the_square_of_both_halves() -> None:
    """Place by place modulo a prime, with Python's integers: the six parts add up to u² - i v² plus the linear terms."""
    both = BatchPair(choose(network(3, 2, 2), InputContract(3, 1.0, 1.0), error=1e-2, smudging=2))
    program, parameters = both.program, both.plan.parameters
    ring, degree = seal.ring(parameters), parameters.degree
    rng = np.random.default_rng(3)
    primes = parameters.data_primes
    query = [np.stack([[rng.integers(0, p, degree, np.uint64) for p in primes] for _ in range(2)]) for _ in range(3)]
    evaluation = program.evaluation()
    for ciphertext in query:
        evaluation.add(ciphertext)
    products = returned(evaluation._products(()))
    secret = both.secret.astype(np.int64)
    basis = [ring.ntt(p)[0].astype(object) for p in (secret, *keys.targets(both.secret))]
    prime, unit = primes[0], imaginary_units(ring)[0]
    i = np.array([unit] * (degree // 2) + [-unit] * (degree // 2), object)
    features = np.array([c[0, 0].astype(object) + c[1, 0].astype(object) * basis[0] for c in query])
    z = program.form.hidden.astype(object) @ features
    u, v = z + z[:, ::-1], z - z[:, ::-1]
    expected = program.form.output.astype(object) @ (u * u - i * v * v)
    if program.form.linear is not None:
        expected = expected + program.form.lift * (program.form.linear.astype(object) @ features)
    for output in range(2):
        parts = products[output, :, 0].astype(object)
        found = parts[0] + sum(part * element for part, element in zip(parts[1:], basis, strict=True))
        assert ((found - expected[output]) % prime == 0).all()


def test_noise_is_what_the_planner_reckons_with() -> None:
    """All records at the worst input of a one-output head, nothing flooded: within half a bit of the model."""
    head = network(5, 4, 1, size=4.0)
    program = choose(head, BALL, privacy=Privacy.INPUT_PRIVATE)
    both, form = BatchPair(program), QuadraticForm(head, BALL)
    weights = form.hidden.T * form.output[0] @ form.hidden
    values, vectors = np.linalg.eigh(weights)
    directions = [vectors[:, np.abs(values).argmax()], *in_ball(2000, 5, 1.0)]
    gradients = [np.linalg.norm(2 * weights @ x + form.linear[0]) for x in directions]
    worst = directions[int(np.argmax(gradients))]
    assert max(gradients) <= form.steepest
    noise = both(np.tile(worst, (both.plan.records, 1)))[:, 0]
    model = NOISE * both.plan.spread * form.steepest / both.plan.input_scale
    assert -0.5 < math.log2((noise - noise.mean()).std() / model) < 0.1


def test_answers_carry_the_stated_flood(small: BatchPair) -> None:
    rows = np.zeros((small.plan.records, 5))
    errors = small(rows) - network(5, 4, 2)(rows[:1])
    spread = (errors - errors.mean(axis=0)).ravel()
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], spread.size) / spread.size
    assert low < (spread**2).mean() / small.plan.flood**2 < 1.1 * high


def test_an_answer_outside_the_range_is_refused(small: BatchPair) -> None:
    rows = np.zeros((small.plan.records, 5))
    rows[0] = 4.0
    tight = replace(small.plan, answer_range=small.plan.answer_range / 2**12)
    with pytest.raises(AnswerRefused, match="range"):
        read_batch(tight, small.secret, small.answers(rows), 1)


def test_slots_hold_both_halves() -> None:
    both = choose(network(5, 4, 2), BALL, smudging=10).plan
    rows = in_ball(both.records, 5, 1.0)
    polynomials = np.stack(list(pack_batch(both, rows)))
    assert polynomials.shape == (5, both.parameters.degree)
    assert np.abs(polynomials).max() <= 2 * both.input_scale
