"""A user's own model: what can be a teacher, what can be data, what the student costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.ckks.coefficient import planner
from secure_infer.distill import student, table, teachers
from secure_infer.distill.ranges import logit_range
from secure_infer.errors import InvalidHead, InvalidInput, SettingsError
from secure_infer.heads import Head, Linear, ReLU
from secure_infer_client.commands import distill as command

Floats = np.ndarray[Any, np.dtype[np.float64]]
NO_STEP = lambda *_: None  # noqa: E731


@pytest.fixture(scope="module")
def mlp() -> Head:
    """A ReLU network of two layers on five features, one of which does not matter."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(16, 5)) * [1, 1, 1, 1, 0]
    layers = [Linear(first, rng.normal(size=16)), ReLU(), Linear(rng.normal(size=(3, 16)), rng.normal(size=3))]
    return Head(layers, labels=["low", "middle", "high"], input_bound=6.0, embedder="mine/1", temperature=2.0)


@pytest.fixture(scope="module")
def rows() -> Floats:
    return np.random.default_rng(1).normal(size=(1000, 5))


@pytest.fixture
def files(tmp_path: Path, mlp: Head, rows: Floats) -> tuple[str, Path]:
    """A teacher and labelled data; the labels are the teacher's answers, one in ten of them changed."""
    labels = mlp.evaluate(rows).argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % 3
    np.savez(tmp_path / "data.npz", x=rows, y=labels)
    mlp.save(tmp_path / "mlp.head")
    return str(tmp_path / "mlp.head"), tmp_path / "data.npz"


def _distilled(model: str, data: Path, **options: Any) -> Head:
    return student.distill(teachers.load(model, 1), table.read(data), student.Options(**options), NO_STEP)


def test_a_linear_student_of_a_network(files: tuple[str, Path], rows: Floats, mlp: Head) -> None:
    pytest.importorskip("scipy")
    head = _distilled(*files)
    facts = head.facts
    assert facts["agreement"] > facts["commonest_answer"] + 0.1
    assert facts["accuracy"]["teacher"] == pytest.approx(0.9, abs=0.05)
    assert facts["rows"] == {"train": 700, "validation": 100, "test": 200}
    assert (head.labels, head.embedder, head.contract) == (mlp.labels, "mine/1", mlp.contract)
    plan = planner.choose(head.as_linear(), head.contract)
    assert (facts["plan"], facts["smudging_bits"]) == (str(plan.parameters), plan.smudging_bits)
    assert np.abs(head.evaluate(rows)).max() <= facts["range"] == pytest.approx(logit_range(head), abs=1e-3)
    held_out = np.random.default_rng(0).permutation(1000)[:200]
    agree = (head.evaluate(rows).argmax(axis=1) == mlp.evaluate(rows).argmax(axis=1))[held_out].mean()
    assert agree == pytest.approx(facts["agreement"], abs=1e-4)
    assert _distilled(*files).digest == head.digest


def test_a_quadratic_student_comes_closer(files: tuple[str, Path]) -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("torch")
    linear, quadratic = _distilled(*files), _distilled(*files, hidden=16)
    assert quadratic.facts["agreement"] > linear.facts["agreement"]
    assert [layer.kind for layer in quadratic.layers] == ["linear", "polynomial", "linear"]
    assert quadratic.facts["plan"] is None
    assert "none: plans are for heads without hidden layers" in student.summary(quadratic)


def test_a_linear_teacher_is_matched(tmp_path: Path, rows: Floats) -> None:
    pytest.importorskip("scipy")
    scale = np.array([1.0, 100.0, 0.01, 1.0, 0.0])  # one feature is constant
    teacher = Head(
        [Linear(np.arange(10.0).reshape(2, 5) % 3 / np.maximum(scale, 0.01))], labels=["a", "b"], input_bound=600
    )
    teacher.save(tmp_path / "t.head")
    np.save(tmp_path / "x.npy", rows * scale)
    head = _distilled(str(tmp_path / "t.head"), tmp_path / "x.npy")
    assert head.facts["agreement"] >= 0.98
    assert head.facts["accuracy"] is None
    assert not head.layers[0].arrays()["weight"][:, 4].any()


def test_a_binary_teacher_has_a_binary_student(tmp_path: Path, rows: Floats) -> None:
    pytest.importorskip("scipy")
    Head([Linear([[1.0, -2, 0, 0, 0]], [0.3])], labels=["no", "yes"], input_bound=6.0).save(tmp_path / "t.head")
    truth = np.where(rows[:, 0] - 2 * rows[:, 1] + 0.3 > 0, "yes", "no")
    np.savez(tmp_path / "d.npz", x=rows, y=truth)
    head = _distilled(str(tmp_path / "t.head"), tmp_path / "d.npz")
    assert (head.outputs, head.labels) == (1, ("no", "yes"))
    assert head.facts["accuracy"]["teacher"] == 1.0
    assert head.facts["accuracy"]["student"] >= 0.97


def test_a_function_is_a_teacher(tmp_path: Path, rows: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    (tmp_path / "teacher_of_mine.py").write_text(
        "import numpy as np\ndef logits(x): return np.stack([x[:, 0], x[:, 1] ** 2], axis=1)\n"
        "def flat(x): return x[:, 0]\ndef broken(x): raise RuntimeError('out of tea')\n"
        "def nan(x): return x * np.nan\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows)
    path = list(sys.path)
    head = _distilled("teacher_of_mine:logits", Path("x.npy"), seed=3)
    assert sys.path == path
    assert head.facts["agreement"] > 0.5
    assert head.labels == ("class 0", "class 1")
    assert head.contract.bound == pytest.approx(1.5 * np.abs(rows).max(), rel=0.1)
    assert head.contract.norm == pytest.approx(1.5 * np.linalg.norm(rows, axis=1).max(), rel=0.1)
    told = _distilled("teacher_of_mine:logits", Path("x.npy"), input_bound=5.0)
    assert (told.contract.bound, told.contract.norm) == (5.0, None)
    for name, message in {"flat": "expected logits of shape", "broken": "out of tea", "nan": "NaN"}.items():
        with pytest.raises(InvalidInput, match=message):
            _distilled(f"teacher_of_mine:{name}", Path("x.npy"))
    with pytest.raises(SettingsError, match="has no function 'number'"):
        teachers.load("teacher_of_mine:number", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_a_teacher(tmp_path: Path, rows: Floats) -> None:
    pytest.importorskip("scipy")
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    torch.jit.trace(module, torch.zeros(2, 5)).save(str(tmp_path / "t.pt"))
    expected = module(torch.from_numpy(rows).float()).detach().double().numpy()
    np.testing.assert_allclose(teachers.load(str(tmp_path / "t.pt"), 1).logits(rows), expected, atol=1e-6)
    np.save(tmp_path / "x.npy", rows)
    assert _distilled(str(tmp_path / "t.pt"), tmp_path / "x.npy").facts["agreement"] > 0.7
    with pytest.raises(InvalidInput, match="failed on rows of shape"):
        teachers.load(str(tmp_path / "t.pt"), 1).logits(rows[:, :4])


def test_other_torch_files_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickled.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for name in ("pickled.pt", "junk.pt"):
        with pytest.raises(SettingsError, match="not a TorchScript file"):
            teachers.load(str(tmp_path / name), 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none.head", "no such file"),
        ("none.pt", "no such file"),
        ("model.pkl", "expected NAME.head, a TorchScript NAME.pt, or"),
        ("no_such_package_anywhere:f", "no module named"),
        (":f", "expected NAME.head"),
    ],
)
def test_what_is_no_teacher(model: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        teachers.load(model, 1)


def test_heads_that_are_no_teachers(tmp_path: Path) -> None:
    Head([Linear(np.eye(2))], labels=["a", "b"], input_bound=1.0, task="regression").save(tmp_path / "r.head")
    with pytest.raises(SettingsError, match="expected a classifier"):
        teachers.load(str(tmp_path / "r.head"), 1)
    (tmp_path / "junk.head").write_bytes(b"junk")
    with pytest.raises(InvalidHead):
        teachers.load(str(tmp_path / "junk.head"), 1)


def test_csv_with_and_without_header(tmp_path: Path) -> None:
    body = [f"{i},{i / 2},{'yes' if i % 2 else 'no'}" for i in range(25)]
    (tmp_path / "a.csv").write_text("\n".join(["first,second,label", *body]) + "\n")
    found = table.read(tmp_path / "a.csv")
    assert found.x.shape == (25, 2)
    assert found.labels is not None
    assert found.labels[:2] == ("no", "yes")
    (tmp_path / "b.csv").write_text("\n".join(f"{i},{i / 2}" for i in range(25)))
    bare = table.read(tmp_path / "b.csv")
    np.testing.assert_array_equal(bare.x, found.x)
    assert bare.labels is None


def _npy(array: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        np.save(path / "d.npy", np.asarray(array), allow_pickle=True)
        return path / "d.npy"

    return write


def _npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        np.savez(path / "d.npz", **arrays)
        return path / "d.npz"

    return write


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / name).write_text(text)
        return path / name

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none.npy", "cannot be read"),
        (_text("d.parquet", ""), "expected .npy, .npz or .csv"),
        (_text("d.npy", "junk"), "not an array of numbers"),
        (_text("d.npz", "junk"), "not arrays of numbers"),
        (_npy(np.array([{}, {}], dtype=object)), "not an array of numbers"),
        (_npy(np.zeros(30)), "expected real numbers of shape"),
        (_npy(np.zeros((30, 2), dtype=complex)), "expected real numbers of shape"),
        (_npy(np.zeros((19, 2))), "got 19 rows; expected at least 20"),
        (_npy(np.full((30, 2), np.nan)), "30 rows hold NaN or infinity"),
        (_npz(features=np.zeros((30, 2))), "expected x"),
        (_npz(x=np.zeros((30, 2)), y=np.zeros(29)), "expected 30 labels"),
        (_npz(x=np.zeros((30, 2)), y=np.full(30, 0.5)), "labels are fractions"),
        (_text("d.csv", ""), "holds no rows"),
        (_text("d.csv", "a,b\n1,2\n3\n"), "row 1 has 1 fields; expected 2"),
        (_text("d.csv", "a,b\n1,x\n"), "row 0 holds a field that is not a number"),
        (_text("d.csv", "label,label\n1,2\n"), "at most one"),
    ],
)
def test_bad_data_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises((SettingsError, InvalidInput), match=message):
        table.read(make(tmp_path))


def test_rows_labels_and_bounds_have_to_fit(files: tuple[str, Path], tmp_path: Path, rows: Floats) -> None:
    np.savez(tmp_path / "wide.npz", x=np.ones((30, 6)))
    with pytest.raises(InvalidInput, match="expected 5 features"):
        _distilled(files[0], tmp_path / "wide.npz")
    np.savez(tmp_path / "labels.npz", x=rows, y=np.full(1000, 3))
    with pytest.raises(InvalidInput, match="expected numbers 0 to 2, or the names low, middle, high"):
        _distilled(files[0], tmp_path / "labels.npz")
    with pytest.raises(InvalidInput, match=r"--input-bound 0\.5: \d+ of 1000 rows exceed it"):
        _distilled(*files, input_bound=0.5)
    for options in ({"hidden": -1}, {"hidden": 5000}, {"input_bound": 0.0}, {"input_bound": float("nan")}):
        with pytest.raises(SettingsError, match="expected"):
            _distilled(*files, **options)


def test_the_command(files: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    out = tmp_path / "small.head"
    base = ["--from", files[0], "--data", str(files[1]), "--out", str(out), "--threads", "1"]
    assert command.run([*base, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    head = Head.load(out)
    assert found["digest"] == head.digest
    assert found["agreement"] == head.facts["agreement"]
    assert {"range", "plan", "smudging_bits", "accuracy"} <= set(found)
    assert command.run(base) == 0
    shown = capsys.readouterr().out
    assert f"{found['agreement']:.1%} of 200 held-out rows" in shown
    assert "smudging bits" in shown
