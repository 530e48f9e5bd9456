"""Heads of every kind by two parties in memory: within the stated bound, in the stated rounds and bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.two_parties import TwoParties
from secure_infer import models
from secure_infer.errors import CorrelationMisuse, PlanRefused, UnsupportedHead
from secure_infer.heads import Head, Linear, Polynomial, ReLU, Square
from secure_infer.mpc import compiler
from secure_infer.mpc.compiler import coarse, compile_head
from secure_infer.mpc.fit import Fit, Ranges
from secure_infer.mpc.precision import Fractions
from secure_infer.mpc.program import MAX_ROWS, Answers, Program, Weights
from secure_infer.mpc.stages import stages
from shared import hidden_head, linear_head, unit_rows


def curve(degree: int, units: int, seed: int = 0) -> Polynomial:
    rng = np.random.default_rng(seed + degree)
    return Polynomial(rng.normal(size=(units, degree + 1)) / np.arange(1, degree + 2))


HEADS = {
    "linear": linear_head(384, 21, scale=17.0),
    "binary": linear_head(30, 1, bound=6.0, norm=None),
    "square": hidden_head((384, 64, 10)),
    "quadratic": hidden_head((30, 9, 2), curve(2, 9)),
    "cubic": hidden_head((6, 5, 2), curve(3, 5)),
    "quartic": hidden_head((5, 4, 1), curve(4, 4)),
    "two squares": hidden_head((40, 4, 4, 2)),
    "relu": hidden_head((384, 64, 10), ReLU()),
    "two relus": hidden_head((40, 8, 6, 3), ReLU()),
    "relu first": Head(
        [Linear(np.eye(3)), ReLU(), Linear(np.eye(3))], labels=["a", "b", "c"], input_bound=20.0, public_layers=1
    ),
    "relu last": Head([Linear(np.eye(3)), ReLU()], labels=["a", "b", "c"], input_bound=2.0),
    "square, relu": Head(
        [Linear(np.eye(4)), Square(), Linear(np.ones((3, 4)) - 2 * np.eye(3, 4)), ReLU(), ReLU(), Linear(np.eye(3))],
        labels=["a", "b", "c"],
        input_bound=1.5,
    ),
}


def rows(head: Head, count: int, seed: int = 1) -> np.ndarray:
    x = unit_rows(count, head.features, seed)
    return x if head.contract.norm else head.contract.bound * x / np.abs(x).max()


@pytest.mark.parametrize("weights", list(Weights))
@pytest.mark.parametrize("name", HEADS)
def test_every_kind_of_head(name: str, weights: Weights) -> None:
    head = HEADS[name]
    parties = TwoParties(head, weights=weights)
    program = parties.program
    for count in (1, 3, 16):
        x = rows(head, count)
        assert np.abs(parties.evaluate(x) - head.evaluate(x)).max() <= program.error_bound
        padded = 1 << (count - 1).bit_length()
        assert parties.links[0].rounds == (program.rounds if program.link_bytes(1) else 0)
        assert parties.links[0].sent == program.link_bytes(padded)
        assert np.abs(head.evaluate(x)).max() <= program.answer_range


@pytest.mark.parametrize("weights", list(Weights))
@pytest.mark.parametrize("name", ["linear", "square", "relu", "binary", "two relus"])
def test_labels_and_nothing_else(name: str, weights: Weights) -> None:
    head = HEADS[name]
    parties = TwoParties(head, weights=weights, answers=Answers.LABEL)
    x = rows(head, 40)
    logits = head.evaluate(x)
    holds = parties.evaluate(x)
    expected = logits > 0 if head.outputs == 1 else logits == logits.max(axis=1, keepdims=True)
    ordered = np.sort(logits, axis=1)
    margin = np.abs(logits[:, 0]) if head.outputs == 1 else ordered[:, -1] - ordered[:, -2]
    clear = margin > 2 * parties.program.error_bound
    assert clear.mean() > 0.8
    assert (holds == expected)[clear].all()


def test_edges_of_the_contract() -> None:
    head = HEADS["binary"]
    x = np.stack([np.zeros(30), np.full(30, 6.0), np.full(30, -6.0), np.eye(30)[3]])
    parties = TwoParties(head)
    assert np.abs(parties.evaluate(x) - head.evaluate(x)).max() <= parties.program.error_bound


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([1e-2, 1e-3, 1e-4]),
    st.integers(0, 1000),
)
def test_the_error_bound_holds(
    features: int, units: int, outputs: int, degree: int, rectified: bool, error: float, seed: int
) -> None:
    activation = ReLU() if rectified else curve(degree, units, seed)
    head = hidden_head((features, units, outputs), activation, seed=seed)
    parties = TwoParties(head, error=error, weights=Weights.SHARED)
    assert parties.program.error_bound <= 1.1 * error
    x = rows(head, 30, seed + 1)
    assert np.abs(parties.evaluate(x) - head.evaluate(x)).max() <= parties.program.error_bound


def test_biases_finer_than_the_bits_of_tiny_inputs() -> None:
    layers = [Linear(np.full((2, 2), 1e-3), [0.3, -0.123]), ReLU(), Linear(np.eye(3, 2))]
    head = Head(layers, labels=["a", "b", "c"], input_bound=0.003)
    parties = TwoParties(head)
    x = 0.003 * np.array([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
    assert np.abs(parties.evaluate(x) - head.evaluate(x)).max() <= parties.program.error_bound


@pytest.mark.parametrize("bound", [0.98 * 2.0**k for k in (12, 13, 14, 15)])
def test_programs_that_fill_the_room_are_ones_that_clients_take(bound: float) -> None:
    head = Head([Linear([[3.9]])], labels=["a", "b"], input_bound=bound)
    parties = TwoParties(head)
    assert np.abs(parties.evaluate(np.full((1, 1), bound)) - 3.9 * bound).max() <= parties.program.error_bound


def test_the_packaged_flagship_keeps_a_thousandth() -> None:
    head = Head.load(models.path() / "icd10-chapter.head")
    parties = TwoParties(head)
    assert parties.program.error_bound <= 1e-3
    assert parties.program.failure_probability <= 2e-4
    x = unit_rows(64, head.features)
    assert np.abs(parties.evaluate(x) - head.evaluate(x)).max() <= 1e-3


def test_an_exaggerated_scale_fails_as_often_as_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits far beyond what the head needs: truncation then spoils records about as often as stated, and visibly."""
    head = hidden_head((16, 8, 2))
    parts = stages(head)
    fractions = Fractions(inputs=24, weights=20, state=27, last=6)
    failure = Ranges(parts, label=False).failure(fractions)
    fitted = Fit(fractions, 0, 0.1, failure, float(parts[-1].bounds.outputs.max()))
    monkeypatch.setattr(compiler, "fit", lambda *_, **__: (fitted, ""))
    parties = TwoParties(head)
    x = unit_rows(256, 16)
    values = head.layers[1](head.layers[0](x))
    expected = (values.sum(axis=1) * 2.0 ** (2 * 27 - 64)).mean()
    assert 1e-4 < expected < parties.program.failure_probability < 0.1
    spoilt = total = 0
    for _ in range(40):
        logits = parties.evaluate(x)
        off = np.abs(logits - head.evaluate(x)).max(axis=1) > 0.1
        seen = np.abs(logits).max(axis=1) > parties.program.answer_range + 0.1
        assert (off == seen).all(), "a spoilt record must be out of range"
        spoilt, total = spoilt + int(off.sum()), total + len(x)
    # The squares fail at the rate of these very inputs: Poisson, six standard deviations. Stated is the worst input's.
    assert abs(spoilt - expected * total) < 6 * (expected * total) ** 0.5 + 6
    assert spoilt <= parties.program.failure_probability * total


def test_heads_that_do_not_fit_say_what_would_help() -> None:
    large = Head([Linear(np.full((2, 4), 1e9)), Square(), Linear(np.eye(2))], labels=["a", "b"], input_bound=1e3)
    with pytest.raises(UnsupportedHead, match=r"no fixed point keeps every logit .*; scale the features, or train"):
        compile_head(large, error=1e-3)
    with pytest.raises(UnsupportedHead, match=r"no fixed point keeps every logit .*; ask for a larger --error"):
        compile_head(hidden_head((30, 9, 2)), error=1e-12)
    public = linear_head(4, 2)
    with pytest.raises(UnsupportedHead, match="nothing is left to hide"):
        compile_head(Head(public.layers, labels=public.labels, input_bound=1.0, public_layers=1))
    regression = Head([Linear(np.eye(2))], labels=["a", "b"], input_bound=1.0, task="regression")
    with pytest.raises(UnsupportedHead, match="no labels"):
        compile_head(regression, answers=Answers.LABEL)
    many = linear_head(4, 200)
    with pytest.raises(UnsupportedHead, match="at most 128 classes"):
        compile_head(many, answers=Answers.LABEL)


def test_shared_weights_need_their_masks_opened() -> None:
    parties = TwoParties(HEADS["square"], weights=Weights.SHARED)
    evaluator = parties.evaluators[0]
    assert evaluator.needs_masks(b"another")
    assert not evaluator.needs_masks(b"epoch")
    with pytest.raises(CorrelationMisuse, match="not opened"):
        evaluator.run(np.zeros((1, 384), np.uint64), parties.links[0], None, None, b"another")  # type: ignore[arg-type]


# Programs as data.


def test_programs_survive_their_json() -> None:
    for head in HEADS.values():
        program = compile_head(head).program
        assert Program.from_json(program.as_json()) == program
        assert len(program.digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"fraction": 60},
        {"fraction": 0},
        {"answer_range": float("nan")},
        {"answer_range": 1e30},
        {"error_bound": -1.0},
        {"weights": "borrowed"},
        {"steps": []},
        {"steps": [{"op": "affine", "inputs": 4, "width": 2, "tensor": 0, "truncate": 0}] * 2},
        {"steps": [{"op": "exec", "inputs": 4}]},
        {"steps": [{"op": "affine", "inputs": 4, "width": -2, "tensor": 0, "truncate": 0}]},
        {"steps": [{"op": "powers", "inputs": 4, "exponents": [9], "truncate": 4}]},
    ],
)
def test_unsound_programs_are_refused(change: dict[str, object]) -> None:
    entry = {**compile_head(linear_head(4, 2)).program.as_dict(), **change}
    with pytest.raises(PlanRefused):
        Program.from_json(json.dumps(entry, sort_keys=True).encode())


def test_programs_are_held_to_the_contract() -> None:
    program = compile_head(linear_head(4, 2)).program
    program.check_for(linear_head(4, 2).contract, 2)
    with pytest.raises(PlanRefused, match="expected 5 features"):
        program.check_for(linear_head(5, 2).contract, 2)
    with pytest.raises(PlanRefused, match="no room"):
        program.check_for(linear_head(4, 2, bound=1e15, norm=None).contract, 2)
    with pytest.raises(PlanRefused, match=f"at most {MAX_ROWS}"):
        program.recipe(MAX_ROWS + 1)


def test_figures_are_published_coarsely() -> None:
    assert [coarse(v) for v in (0.0012345, 0.99, 17.0, 0.0)] == [0.0013, 0.99, 17.0, 0.0]
    assert coarse(1.23e-7, 1) == 2e-7
