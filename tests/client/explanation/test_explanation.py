"""Explanations: units, occlusion, exact sums, what they look like. No server."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer import models
from secure_infer.errors import InvalidInput, ModelChanged, SettingsError, UnsupportedHead
from secure_infer.heads import Head, Linear, ModelSpec, Square
from secure_infer_client import Explanation, contributions
from secure_infer_client.explanation import Method, exact, occlusion, units
from secure_infer_client.explanation.target import Target
from secure_infer_client.text import embedder
from secure_infer_client.text.embed import MiniLM

TEXT = "Closed fracture of left femur, due to a fall (from a ladder)"


def counting(outputs: int, labels: list[str], task: str = "classification") -> Head:
    """Logit k of features (words, letters / 10)."""
    weight = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])[:outputs]
    return Head([Linear(weight, np.zeros(outputs))], labels=labels, input_bound=100.0, task=task)


def features(texts: list[str]) -> np.ndarray:
    return np.array([[len(text.split()), len(text) / 10] for text in texts], np.float64)


# Units.


def test_phrases() -> None:
    assert units.phrases("Fracture of left femur, closed, due to a fall") == [
        "Fracture",
        "of left femur,",
        "closed,",
        "due to a fall",
    ]
    assert units.phrases(TEXT)[-1] == "(from a ladder)"
    assert units.phrases("of") == ["of"]


@given(st.text(alphabet="ab ,.;()of the", max_size=60))
def test_units_hold_all_words_in_order(text: str) -> None:
    for kind in units.UNITS:
        assert " ".join(units.split(text, kind)).split() == text.split()


def test_other_units_are_refused() -> None:
    with pytest.raises(SettingsError, match="words or phrases"):
        units.split("text", "sentences")


# Occlusion.


@given(st.lists(st.sampled_from(["fever", "a", "no", "chest pain"]), min_size=1, max_size=40))
def test_variants_are_padded(found: list[str]) -> None:
    variants = occlusion.variants(found)
    assert len(variants) % occlusion.PAD == 0
    assert len(variants) - len(found) - 1 < occlusion.PAD
    assert all(text.strip() for text in variants)


def test_what_is_left_out_is_what_is_lost() -> None:
    head = counting(3, ["words", "letters", "both"])
    found = units.words("a bb ccc")
    logits = head.evaluate(features(occlusion.variants(found)))
    spec = ModelSpec.of("m", head)
    of_words = occlusion.explanation(spec, found, logits, 1e-3, "words")
    assert of_words.attributions.tolist() == [1, 1, 1]
    assert (of_words.logit, of_words.error_bound, of_words.label) == (3.0, 2e-3, "words")
    of_letters = occlusion.explanation(spec, found, logits, 1e-3, "letters")
    assert of_letters.attributions == pytest.approx([0.2, 0.3, 0.4])
    assert of_letters.ranked() == [2, 1, 0]
    assert occlusion.explanation(spec, found, logits, 1e-3, None).label == "words"


@pytest.mark.parametrize(
    ("task", "labels", "logits", "label", "expected"),
    [
        ("classification", ["no", "yes"], [[2.0], [1.5]], None, ("yes", 2.0)),
        ("classification", ["no", "yes"], [[-2.0], [1.5]], None, ("no", 2.0)),
        ("classification", ["no", "yes"], [[2.0], [1.5]], "no", ("no", -2.0)),
        ("regression", ["mmol"], [[2.0], [1.5]], None, ("mmol", 2.0)),
        ("multilabel", ["a"], [[-2.0], [1.5]], None, ("a", -2.0)),
    ],
)
def test_one_logit(task: str, labels: list[str], logits: list, label: str | None, expected: tuple) -> None:
    target = Target.of(ModelSpec.of("m", counting(1, labels, task)), np.array(logits)[0], label)
    assert (target.label, target.scores(np.array(logits))[0]) == expected


def test_a_label_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="has words, letters, both"):
        Target.of(ModelSpec.of("m", counting(3, ["words", "letters", "both"])), np.zeros(3), "weight")


def test_a_part_of_one_label_names_it() -> None:
    spec = ModelSpec.of("m", counting(3, ["Diseases of the skin", "Diseases of the eye", "eye"]))
    assert Target.of(spec, np.zeros(3), "SKIN").output == 0
    assert Target.of(spec, np.zeros(3), "eye").output == 2  # a name goes before a part of another
    with pytest.raises(InvalidInput, match="part of several: Diseases of the skin, Diseases of the eye; name one"):
        Target.of(spec, np.zeros(3), "diseases")
    with pytest.raises(InvalidInput, match="has Diseases"):
        Target.of(spec, np.zeros(3), "")


# Exact.


def test_the_worked_example() -> None:
    head = Head([Linear(np.array([[2.0, -1.0]]), np.array([0.5]))], labels=["no", "yes"], input_bound=10.0)
    shares, bias = contributions(head, [[3.0, 4.0]])
    assert shares.tolist() == [[[6.0, -4.0]]]
    assert bias.tolist() == [0.5]


def test_contributions_add_up() -> None:
    head = Head.load(models.path() / "wdbc.head")
    x = np.random.default_rng(1).uniform(-1, 1, (4, head.features))
    shares, bias = contributions(head, x)
    assert np.abs(shares.sum(axis=2) + bias - head.evaluate(x)).max() < 1e-9


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM(threads=1)


@pytest.fixture(scope="module")
def published() -> Head:
    return Head.load(models.path() / "icd10-chapter-linear.head")


@pytest.mark.parametrize("text", [TEXT, "fever", "chronic  kidney disease\twith hypertension " * 60])
def test_an_embedding_is_the_sum_of_its_parts(minilm: MiniLM, text: str) -> None:
    places, vectors, rest = minilm.parts(text)
    assert len(places) == len(vectors)
    assert np.abs(vectors.sum(axis=0) + rest - minilm([text])[0]).max() < 1e-6


@pytest.mark.parametrize("kind", list(units.UNITS))
@pytest.mark.parametrize("label", [None, "IV Endocrine and metabolic"])
def test_attributions_add_up_to_the_logit(minilm: MiniLM, published: Head, kind: str, label: str | None) -> None:
    found = units.split(TEXT, kind)
    explained = exact.explanation(ModelSpec.of("m", published), published, minilm, found, label)
    logits = published.evaluate(minilm([" ".join(found)]).astype(np.float64))[0]
    assert explained.logit == pytest.approx(logits[published.labels.index(explained.label)], abs=1e-4)
    assert explained.attributions.sum() + explained.rest == pytest.approx(explained.logit, abs=1e-9)
    assert explained.label == (label or published.labels[int(logits.argmax())])


def test_exact_takes_the_served_linear_head_and_its_embedder(minilm: MiniLM, published: Head) -> None:
    spec = ModelSpec.of("m", published)
    other = counting(3, ["a", "b", "c"])
    with pytest.raises(ModelChanged, match="published: expected the head"):
        exact.explanation(spec, other, minilm, ["a"], None)
    deep = Head([*other.layers, Square(), Linear(np.ones((1, 3)), np.zeros(1))], labels=["no", "yes"], input_bound=1.0)
    with pytest.raises(UnsupportedHead, match="one linear layer, got linear, square, linear"):
        exact.explanation(ModelSpec.of("m", deep), deep, minilm, ["a"], None)
    with pytest.raises(SettingsError, match="packaged embedder"):
        exact.explanation(spec, published, embedder(minilm.identity, features), ["a"], None)


# What it looks like.


def explained(method: Method = Method.OCCLUSION, shares: tuple[float, ...] = (2.0, -1.0, 0.0005)) -> Explanation:
    words = tuple(f"<w{number}>" for number in range(len(shares)))
    return Explanation("label & co", words, np.array(shares), 3.0, 0.001, method, rest=0.5)


def test_lines() -> None:
    plain = explained().lines(40)
    assert [line.split()[0] for line in plain[1:4]] == ["<w0>", "<w2>", "<w1>"]
    assert "█" in plain[1]
    assert "░" in plain[3]
    assert "█" not in plain[2]
    assert all(len(line) <= 40 for line in plain[1:4])
    assert "\x1b" not in "".join(plain)
    assert "\x1b[" in "".join(explained().lines(40, colour=True))
    assert "+0.500" in explained(Method.EXACT).lines()[-1]
    assert "18 more" in explained(shares=tuple(np.linspace(-1, 1, 30))).lines()[-2]
    assert explained(shares=()).lines()


def test_html_is_one_page_that_loads_nothing_and_escapes() -> None:
    page = explained().html()
    assert "&lt;w0&gt;" in page
    assert "<w0>" not in page
    assert "label &amp; co" in page
    for loads in ("http", "src=", "<script", "url(", "@import"):
        assert loads not in page
    assert page.count("<mark") == 2  # the third is within the error bound
