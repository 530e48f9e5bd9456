"""`secure-infer evaluate`: figures on labelled data, and the ways such data is broken."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import Head
from secure_infer_client.labelled import read
from secure_infer_client.scoring import Rate, abstention, report
from shared import unit_rows


def test_wilson_interval_is_scipys() -> None:
    for hits, count in ((0, 5), (3, 7), (40, 40), (711, 1000)):
        right = np.arange(count) < hits
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        found = Rate.of(right)
        assert np.allclose([found.rate, found.low, found.high], [hits / count, expected.low, expected.high], atol=1e-6)
    assert np.isnan(Rate.of(np.zeros(0, bool)).rate)


def test_report_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c"]
    truth, answers = rng.choice(labels, 200).tolist(), rng.choice(labels, 200).tolist()
    found = report(labels, truth, answers, rng.choice(["x", "y"], 200).tolist())
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found["accuracy"]["hits"] == sum(t == a for t, a in zip(truth, answers, strict=True))
    assert sum(g["count"] for g in found["groups"].values()) == 200
    worked = report(["a", "b"], list("aabb"), list("abbb"))
    assert worked["accuracy"]["rate"] == 0.75
    assert worked["classes"]["a"]["recall"]["rate"] == 0.5
    assert worked["classes"]["a"]["precision"]["rate"] == 1.0


def test_abstention_counts_what_is_left() -> None:
    found = abstention(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.6, 0.3]), 0.6)
    assert (found["answered"]["rate"], found["accuracy"]["hits"], found["accuracy"]["count"]) == (0.75, 2, 3)


@pytest.fixture
def labelled(tmp_path: Path, heads: dict[str, Head]) -> Path:
    x = unit_rows(60, 8)
    answers = [heads["small"].labels[i] for i in heads["small"].evaluate(x).argmax(axis=1)]
    answers[:6] = [heads["small"].labels[0]] * 6
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*(f"f{i}" for i in range(8)), "label", "sex"])
        out.writerows([*row, label, "fm"[i % 2]] for i, (row, label) in enumerate(zip(x, answers, strict=True)))
    return tmp_path / "rows.csv"


def run(address: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secure_infer.cli", "evaluate", "--target", address, "--model", "small"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_encrypted_beside_plaintext(address: str, labelled: Path, models_dir: Path) -> None:
    options = ("--labels", labelled, "--group-column", "sex", "--abstain-below", "0.4")
    done = run(address, *options, "--head", models_dir / "small.head", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["encrypted"]["accuracy"] == found["plaintext"]["accuracy"]
    assert found["agreement_beyond_twice_the_bound"]["rate"] == 1.0
    assert found["max_logit_error"] <= found["error_bound"]
    assert set(found["encrypted"]["groups"]) == {"f", "m"}
    assert found["encrypted"]["abstention"]["threshold"] == 0.4
    text = run(address, *options).stdout
    assert "encrypted  accuracy" in text
    assert "plaintext" not in text


def test_wrong_reference_or_data(address: str, labelled: Path, models_dir: Path, tmp_path: Path) -> None:
    cases = [
        (["--labels", labelled, "--head", models_dir / "public.head"], "digest"),
        (["--labels", tmp_path / "none.csv"], "cannot be read"),
        (["--labels", labelled, "--label-column", "diagnosis"], "no column 'diagnosis'"),
        (["--labels", labelled], "expected numbers"),  # the column `sex` is taken for a feature
        (["--labels", labelled, "--abstain-below", "7"], "between 0 and 1"),
    ]
    for arguments, message in cases:
        done = run(address, *arguments)
        assert done.returncode in (1, 2)
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("x.csv", "", InvalidInput, "no rows"),
        ("x.csv", "text,label\nhello,z\n", InvalidInput, "not the model's, first in data row 1"),
        ("x.csv", "a,label\n1\n", InvalidInput, "other columns"),
        ("x.csv", "a,label\nnan?,a\n", InvalidInput, "expected numbers"),
        ("x.jsonl", '{"text": "t", "label": "a"}\n[1]\n', InvalidInput, "line 2"),
        ("x.txt", "text", SettingsError, "expected .csv or .jsonl"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, kind: type[Exception], message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=message):
        read(tmp_path / name, text="text", label="label", group=None, labels=["a", "b"])


def test_texts_and_groups(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"text": "t", "label": "a", "site": 3}\n\n{"text": "u", "label": "b", "site": 4}\n'
    )
    found = read(tmp_path / "x.jsonl", text="text", label="label", group="site", labels=["a", "b"])
    assert (found.texts, found.features, found.labels, found.groups) == (["t", "u"], None, ["a", "b"], ["3", "4"])


def test_texts_keep_their_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('text,label\n"acute\nfracture\u2028of femur",a\n', encoding="utf-8")
    (tmp_path / "x.jsonl").write_text('{"text": "one\u2028two", "label": "a"}\n', encoding="utf-8")
    found = [
        read(tmp_path / name, text="text", label="label", group=None, labels=["a", "b"])
        for name in ("x.csv", "x.jsonl")
    ]
    assert [f.texts for f in found] == [["acute\nfracture\u2028of femur"], ["one\u2028two"]]
