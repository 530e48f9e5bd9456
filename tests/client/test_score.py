"""`secure-infer score`: real processes, killed at random moments, and every way in which a row or a run goes wrong."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from client.parties import Parties
from secure_infer import cli, models
from secure_infer.ckks.link import Link
from secure_infer.errors import InvalidInput, ModelChanged, ServerUnavailable, SettingsError
from secure_infer.heads import Head, Linear, ModelSpec, Task
from secure_infer.mpc.program import Answers
from secure_infer_client import Client, Record
from secure_infer_client.choice import Offered
from secure_infer_client.cohort import Job, score
from secure_infer_client.cohort.rows import Columns
from secure_infer_client.local_server import LocalServer
from secure_infer_client.record import read
from secure_infer_client.text.prepare import TextSide
from shared import linear_head, unit_rows

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = Link.parse("loopback")
CANARY = "Zanzibar-4711"


def features_file(path: Path, rows: int, bad: dict[int, str] | None = None) -> np.ndarray:
    """A CSV of unit rows with ids; `bad` replaces the first feature of these rows (from 1)."""
    x = unit_rows(rows, 8)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", *(f"f{i}" for i in range(8))])
        for number, row in enumerate(x, 1):
            out.writerow([f"p{number}", (bad or {}).get(number, row[0]), *row[1:]])
    return x


COLUMNS = Columns(features=tuple(f"f{i}" for i in range(8)), id="id")


def answers_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return found
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{**row, "logits": json.loads(row["logits"])} for row in csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_killed_at_random_moments(address: str, heads: dict[str, Head], tmp_path: Path, suffix: str) -> None:
    rows, rng = 300, random.Random(suffix)
    bad = dict.fromkeys(rng.sample(range(1, rows + 1), 9), CANARY)
    x = features_file(tmp_path / "in.csv", rows, bad)
    out = tmp_path / f"out.{suffix}"
    command = [
        *(sys.executable, "-m", "secure_infer.cli", "score", str(tmp_path / "in.csv"), "--out", str(out)),
        *("--features-columns", *COLUMNS.features, "--id-column", "id", "--target", address, "--model", "small"),
        *("--chunk", "12", "--logits", "--json"),
    ]
    scored = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wanted = scored + rng.randrange(1, 110)
        while process.poll() is None and _scored(out) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        scored = _scored(out)
        assert CANARY not in "".join(p.read_text() for p in tmp_path.glob("out.*"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["rejected"], summary["resumed"]) == (rows, 9, 2)
    documented = (ROOT / "docs" / "commands.md").read_text().partition("\n## score\n")[2].partition("\n## ")[0]
    assert not [name for name in [*summary, *answers_of(out)[0]] if f"`{name}`" not in documented]
    assert summary["run_rows"] <= rows - scored
    kept = [n for n in range(1, rows + 1) if n not in bad]
    found = answers_of(out)
    assert [int(one["row"]) for one in found] == kept
    assert [one["id"] for one in found] == [f"p{n}" for n in kept]
    exact = heads["small"].evaluate(x[[n - 1 for n in kept]])
    assert np.abs(np.array([one["logits"] for one in found]) - exact).max() <= float(found[0]["error_bound"])
    rejected = [json.loads(line) for line in Path(summary["rejected_file"]).read_text().splitlines()]
    assert [one["row"] for one in rejected] == sorted(bad)
    assert {one["reason"] for one in rejected} == {"f0: expected a number"}
    assert CANARY not in Path(summary["rejected_file"]).read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", out.name, f"{out.name}.rejected.jsonl"}


def _scored(out: Path) -> int:
    try:
        found: int = json.loads(out.with_name(out.name + ".checkpoint").read_text())["scored"]
    except FileNotFoundError:
        return 0
    return found


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of one packaged head alone."""
    directory = tmp_path_factory.mktemp("packaged")
    (directory / "icd10-chapter-linear.head").symlink_to(models.path() / "icd10-chapter-linear.head")
    with LocalServer(directory, "--batches", "0") as running:
        yield running.address


def test_texts(packaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = {
        "1": "Acute appendicitis with perforation",
        "2": "   ",
        "3": "\u200b\u200b",
        "4": "Fracture of femur, call 555-123-4567",
        "5": "fever and cough " * 200,
    }
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([("visit", "note"), *notes.items(), ("6",)])
    arguments = [
        *("score", str(tmp_path / "in.csv"), "--text-column", "note", "--id-column", "visit"),
        *("--target", packaged, "--model", "icd10-chapter-linear", "--logits", "--json"),
    ]
    for name, workers in (("pool", "0"), ("apart", "1")):
        more = ("--long-text", name, "--embed-workers", workers)
        assert cli.main([*arguments, "--out", str(tmp_path / f"{name}.jsonl"), *more]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert (summary["scored"], summary["rejected"]) == (3, 3)
    found = answers_of(tmp_path / "pool.jsonl")
    assert [(one["row"], one["id"]) for one in found] == [(1, "1"), (4, "4"), (5, "5")]
    head = Head.load(models.path() / "icd10-chapter-linear.head")
    spec = ModelSpec.of("icd10-chapter-linear", head)
    side = TextSide(None, remove=True, long_text="pool")
    exact = head.evaluate(side.prepare([notes[one["id"]] for one in found], spec).rows)
    assert np.abs(np.array([one["logits"] for one in found]) - exact).max() <= found[0]["error_bound"]
    assert found[0]["label"].startswith("XI ")
    rejected = [json.loads(line) for line in (tmp_path / "pool.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(one["row"], one["reason"].partition(";")[0]) for one in rejected] == [
        (2, "note: empty"),
        (3, "holds no word the tokenizer can read"),
        (6, "expected 2 fields, got 1"),
    ]
    assert [one["row"] for one in answers_of(tmp_path / "apart.jsonl")] == [1, 4, 5]


class Flaky:
    """A client that answers in the clear, and is told when to fail."""

    def __init__(self, spec: ModelSpec, head: Head, label_only: bool = False) -> None:
        self.spec, self.head, self.label_only, self.offered = spec, head, label_only, Offered()
        self.fail: list[Exception] = []
        self.stats = SimpleNamespace(plan="none", error_bound=0.0, bytes_up=10, bytes_down=5, key_bytes=1)

    @property
    def last_call(self) -> Any:
        return SimpleNamespace(stats=self.stats, model_digest=self.spec.digest)

    def predict(self, x: np.ndarray) -> np.ndarray:
        if self.fail:
            raise self.fail.pop(0)
        return self.head.evaluate(x)

    def decide(self, x: np.ndarray) -> list[str]:
        return self.spec.decide(self.predict(x))


def flaky(head: Head, **changed: Any) -> Any:
    return Flaky(ModelSpec.of("m", head), head, **changed)


def test_a_server_that_is_away(tmp_path: Path) -> None:
    features_file(tmp_path / "in.csv", 50)
    client, told = flaky(linear_head(8, 3)), []
    client.fail = [ServerUnavailable("away")]
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv", COLUMNS, chunk=20, wait=5.0)
    summary = score(client, job, scheme="ckks", link=LOOPBACK, tell=lambda error, seconds: told.append(error.reason))
    assert (summary.scored, summary.retries, told) == (50, 1, ["SERVER_UNAVAILABLE"])
    assert summary.bytes_up == 30

    job = Job(tmp_path / "in.csv", tmp_path / "again.csv", COLUMNS, chunk=20, wait=0.0)
    answering = client.predict

    def third(x: np.ndarray) -> np.ndarray:
        if x.shape[0] < 20:
            raise ServerUnavailable("away")
        return answering(x)

    client.predict = third
    with pytest.raises(ServerUnavailable, match="40 rows are scored and kept; run the same command again"):
        score(client, job, scheme="ckks", link=LOOPBACK)
    client.predict = answering
    summary = score(client, job, scheme="ckks", link=LOOPBACK)
    assert (summary.scored, summary.resumed, summary.run_rows) == (50, 1, 10)
    same = [(tmp_path / name).read_text() for name in ("out.csv", "again.csv")]
    assert same[0] == same[1]


def test_another_input_model_or_option_does_not_go_on(tmp_path: Path) -> None:
    features_file(tmp_path / "in.csv", 30)
    client = flaky(linear_head(8, 3))
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv", COLUMNS, chunk=20, wait=0.0)
    client.fail = [ServerUnavailable("away")]
    with pytest.raises(ServerUnavailable):
        score(client, job, scheme="ckks", link=LOOPBACK)
    with pytest.raises(SettingsError, match="model digest"):
        score(flaky(linear_head(8, 3, seed=9)), job, scheme="ckks", link=LOOPBACK)
    with pytest.raises(SettingsError, match="logits"):
        score(client, Job(job.input, job.out, COLUMNS, logits=True), scheme="ckks", link=LOOPBACK)
    features_file(tmp_path / "in.csv", 31)
    with pytest.raises(SettingsError, match=r"input sha256.*--restart"):
        score(client, job, scheme="ckks", link=LOOPBACK)
    anew = Job(job.input, job.out, COLUMNS, restart=True)
    assert score(client, anew, scheme="ckks", link=LOOPBACK).scored == 31
    with pytest.raises(SettingsError, match="nothing was overwritten"):
        score(client, job, scheme="ckks", link=LOOPBACK)


def test_a_model_that_changes_meanwhile(tmp_path: Path) -> None:
    """Accepted by the client, and yet no cohort is scored by two: what was scored before stays."""
    features_file(tmp_path / "in.csv", 30)
    client = flaky(linear_head(8, 3))
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv", COLUMNS, chunk=10)

    def changed(_: object) -> None:
        client.head = linear_head(8, 3, seed=9)
        client.spec = ModelSpec.of("m", client.head)

    with pytest.raises(ModelChanged, match=r"while a cohort was scored.*--restart"):
        score(client, job, scheme="ckks", link=LOOPBACK, reached=changed)
    assert not job.out.exists()


def test_an_input_that_changes_meanwhile(tmp_path: Path) -> None:
    features_file(tmp_path / "in.csv", 30)
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv", COLUMNS, chunk=10)

    def touched(_: object) -> None:
        with job.input.open("a") as file:
            file.write("\n")

    with pytest.raises(InvalidInput, match="changed while"):
        score(flaky(linear_head(8, 3)), job, scheme="ckks", link=LOOPBACK, reached=touched)
    assert not job.out.exists()


def test_answers_of_every_kind(tmp_path: Path) -> None:
    x = features_file(tmp_path / "in.csv", 5)
    weight, bias, names = np.ones((2, 8)), np.zeros(2), ["a", "b"]
    tasks = {task: Head([Linear(weight, bias)], labels=names, input_bound=1.0, task=task) for task in Task}
    for task, head in tasks.items():
        for label_only in (False, True):
            out = tmp_path / f"{task}-{label_only}.parquet"
            client = flaky(head, label_only=label_only)
            score(client, Job(tmp_path / "in.csv", out, COLUMNS), scheme="mpc", link=LOOPBACK)
            found = answers_of(out)
            weighed = not label_only and task is not Task.REGRESSION
            assert ("probability" in found[0]) == ("margin" in found[0]) == ("certain" in found[0]) == weighed
            assert ("logits" in found[0]) == (task is Task.REGRESSION and not label_only)
            assert [one["label"] for one in found] == client.spec.decide(head.evaluate(x))


def test_no_rows_at_all(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        features_file(tmp_path / "in.csv", 0)
        out = tmp_path / f"out.{suffix}"
        assert (
            score(flaky(linear_head(8, 3)), Job(tmp_path / "in.csv", out, COLUMNS), scheme="ckks", link=LOOPBACK).rows
            == 0
        )
        assert out.exists()
    assert (tmp_path / "out.csv").read_text().startswith("row,id,label")


@pytest.mark.parametrize("answers", [Answers.LOGITS, Answers.LABEL])
def test_two_parties_and_a_record(tmp_path: Path, answers: Answers) -> None:
    head = linear_head(8, 3)
    x = features_file(tmp_path / "in.csv", 25, bad={3: ""})
    job = Job(tmp_path / "in.csv", tmp_path / "out.jsonl", COLUMNS, chunk=10)
    with (
        Parties({"m": head}, answers=answers) as parties,
        Record(tmp_path / "r", "correct horse", operator="o") as record,
    ):
        with Client(parties.addresses, model="m", scheme="mpc", record=record) as client:
            score(client, job, scheme="mpc", link=LOOPBACK, record=record)
    found = answers_of(job.out)
    kept = [n for n in range(1, 26) if n != 3]
    assert [one["row"] for one in found] == kept
    assert [one["label"] for one in found] == ModelSpec.of("m", head).decide(head.evaluate(x[[n - 1 for n in kept]]))
    with read(tmp_path / "r", "correct horse") as (view, entries):
        calls = list(entries)
        assert [call["rows"] for call in calls] == [10, 10, 4]
        assert [view.holds_id(call, "p3") for call in calls] == [False] * 3
        assert [view.holds_id(call, "p25") for call in calls] == [False, False, True]
        assert calls[0]["task"] == "score, rows 1 to 11"


def test_wrong_use(tmp_path: Path) -> None:
    features_file(tmp_path / "in.csv", 2)
    given = tmp_path / "in.csv"
    for changed in ({"out": given}, {"out": tmp_path / "x.xlsx"}, {"chunk": 0}, {"workers": -1}, {"wait": -1.0}):
        with pytest.raises(SettingsError):
            Job(**({"input": given, "out": tmp_path / "o.csv", "columns": COLUMNS} | changed))
    few = Job(given, tmp_path / "o.csv", Columns(features=("f0", "f1")))
    with pytest.raises(SettingsError, match="takes 8 features, got 2"):
        score(flaky(linear_head(8, 3)), few, scheme="ckks", link=LOOPBACK)
    texts = Job(given, tmp_path / "o.csv", Columns(text="id"))
    with pytest.raises(Exception, match="takes 8 features, not text"):
        score(flaky(linear_head(8, 3)), texts, scheme="ckks", link=LOOPBACK)
    assert not list(tmp_path.glob("o.csv*"))


@pytest.mark.slow
def test_a_server_that_really_goes_away(models_dir: Path, tmp_path: Path) -> None:
    features_file(tmp_path / "in.csv", 1000)
    out = tmp_path / "out.csv"
    with LocalServer(models_dir) as first:
        address = first.address
        command = [
            *(sys.executable, "-m", "secure_infer.cli", "score", str(tmp_path / "in.csv"), "--out", str(out)),
            *(
                "--features-columns",
                *COLUMNS.features,
                "--target",
                address,
                "--model",
                "small",
                "--chunk",
                "20",
                "--json",
            ),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while _scored(out) < 200 and process.poll() is None:
            time.sleep(0.01)
    with LocalServer(models_dir, "--listen", address):
        said, told = process.communicate(timeout=120)
        summary = json.loads(said)
    assert summary["scored"] == 1000
    assert summary["retries"] > 0
    assert "SERVER_UNAVAILABLE" in told
