"""The commands as a user runs them: output, JSON, and one clear line when something is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer import cli
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.heads import Head
from secure_infer_client import samples
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer
from shared import unit_rows

ROOT = Path(__file__).resolve().parents[1]


def documented(command: str) -> set[str]:
    """Every name in code type in the command's section of docs/commands.md."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert section, f"docs/commands.md has no section on {command}"
    return set(re.findall(r"`([\w.]+)`", section.group(1)))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secure_infer.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def failed(*arguments: str | Path, status: int = 1) -> str:
    """The one line on stderr of a command that must fail."""
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert not done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_help_and_version() -> None:
    assert "secure-infer COMMAND" in run("--help").stdout
    assert run("--version").stdout.startswith("secure-infer ")
    assert run().returncode == 2
    assert "unknown command" in failed("nonsense", status=2)


@pytest.mark.parametrize("command", cli.SUMMARIES)
def test_every_command_has_help_and_json(command: str) -> None:
    done = run(*{"audit": ["audit", "verify"], "admin": ["admin", "models", "list"]}.get(command, [command]), "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", unit_rows(3, 8).astype(np.float32))
    return tmp_path / "x.npy"


def test_predict(address: str, heads: dict[str, Head], rows: Path) -> None:
    done = run("predict", "--target", address, "--model", "small", "--embeddings", rows, "--json")
    found = json.loads(done.stdout)
    assert set(found) <= documented("predict")
    exact = heads["small"].evaluate(np.load(rows))
    assert np.abs(np.array(found["logits"]) - exact).max() <= found["error_bound"]
    assert found["labels"] == [heads["small"].labels[i] for i in exact.argmax(axis=1)]
    assert found["stats"]["records"] == 3
    assert len(run("predict", "--target", address, "--model", "small", "--embeddings", rows).stdout.splitlines()) == 4


def test_predict_with_bad_files(address: str, tmp_path: Path) -> None:
    base = ("predict", "--target", address, "--model", "small", "--embeddings")
    assert "cannot be read" in failed(*base, tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("hello")
    assert "not a .npy array" in failed(*base, tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "not a .npy array" in failed(*base, tmp_path / "objects.npy")
    np.savez(tmp_path / "many.npy", a=np.zeros(2))
    (tmp_path / "many.npy.npz").rename(tmp_path / "many.npy")
    assert "several arrays" in failed(*base, tmp_path / "many.npy")
    for name, array in {"rank": np.zeros(8), "width": np.zeros((1, 9)), "nan": np.full((1, 8), np.nan)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert "INVALID_INPUT" in failed(*base, tmp_path / f"{name}.npy")


def test_connection_problems(rows: Path) -> None:
    line = failed("predict", "--target", "127.0.0.1:1", "--model", "m", "--timeout", "5", "--embeddings", rows)
    assert "no server answers at 127.0.0.1:1" in line
    assert "HOST:PORT" in failed("predict", "--target", "x", "--model", "m", "--embeddings", rows, status=2)


@pytest.fixture(scope="module")
def packaged() -> object:
    from secure_infer import models

    with LocalServer(models.path()) as running:
        yield running.address


def test_classify(packaged: str, tmp_path: Path) -> None:
    base = ("classify", "--target", packaged, "--model", "icd10-chapter-linear")
    (tmp_path / "texts.txt").write_text("Reiter's disease\n\nAcute appendicitis, call 555-123-4567\n")
    done = run(*base, "--text", "Fracture of femur", "--file", tmp_path / "texts.txt", "--json")
    found = json.loads(done.stdout)
    assert set(found) | set(found["predictions"][0]) <= documented("classify")
    assert found["predictions"][0]["label"].startswith("XIX")
    assert [len(p["removed"]) for p in found["predictions"]] == [0, 0, 1]
    assert "removed before embedding: 1" in run(*base, "--file", tmp_path / "texts.txt").stdout
    assert "no texts" in failed(*base, status=2)
    assert "cannot be read" in failed(*base, "--file", tmp_path / "none", status=2)
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert "UTF-8" in failed(*base, "--file", tmp_path / "latin")


def test_plan(models_dir: Path, address: str) -> None:
    found = json.loads(run("plan", models_dir / "wide.head", "--batch", "100", "--json").stdout)
    assert found["chosen"] == found["candidates"][0]
    assert all(one["reason"] for one in found["rejected"])
    added = set(found["chosen"]) - {field.name for field in fields(CoefficientPlan)}
    names = set(found) | added | set(found["consequences"][0]) | set(found["rejected"][0])
    assert names | set(found["batch"]) | set(found["batch"]["candidates"][0]) <= documented("plan")
    shown = run("plan", models_dir / "wide.head").stdout
    assert "> chosen: coefficient" in shown
    assert "rejected" in shown
    assert "no polynomial" in failed("plan", models_dir / "relu.head")
    assert "FILE.head" in run("plan").stderr
    found = json.loads(run("plan", "--target", address, "--model", "wide", "--json").stdout)
    assert set(found) <= documented("plan")


def test_inspect(models_dir: Path, heads: dict[str, Head]) -> None:
    found = json.loads(run("inspect", models_dir / "wide.head", "--json").stdout)
    assert found["digest"] == heads["wide"].digest
    assert set(found) == documented("inspect")
    assert found["encrypted_evaluation"] == ["coefficient", "batch"]
    found = json.loads(run("inspect", models_dir / "relu.head", "--json").stdout)
    assert set(found) == documented("inspect")
    assert found["encrypted_evaluation"] == []
    assert "no polynomial" in found["not_encrypted_because"]
    assert "widths                384, 21" in run("inspect", models_dir / "wide.head").stdout
    assert "corrupt.head" in failed("inspect", models_dir / "corrupt.head")


def test_certs(tmp_path: Path) -> None:
    found = json.loads(run("certs", "dev", "--out", tmp_path / "c", "--json").stdout)
    assert all(Path(path).exists() for path in found.values())
    assert set(found) <= documented("certs")
    assert "nothing was overwritten" in failed("certs", "dev", "--out", tmp_path / "c", status=2)


@pytest.mark.slow
def test_demo_as_json() -> None:
    done = run("demo", "--texts", "40", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["texts"] == 40
    assert set(found) | set(found["latency_ms"]) | set(found["server_saw"]) <= documented("demo")
    assert found["agreement_beyond_twice_the_bound"] == 1.0
    assert found["max_logit_error"] <= found["error_bound"] <= 1e-3
    assert set(found["latency_ms"]) == {"embed", "encrypt", "network", "server", "decrypt", "total"}
    # One ciphertext up and one answer down, or a ring of half the size and more answers: the quicker one is taken.
    assert found["bytes_up"] + found["bytes_down"] <= 104_000
    assert found["smudging_bits"] >= 18
    assert found["server_saw"]["found_in_bytes"] == []
    assert found["privacy"] == "both-private"
    shown = run("demo", "--texts", "3").stdout
    assert "what only the client has" in shown
    assert samples.draw(1)[0].text[:30] in shown
    assert "expected 1 to" in failed("demo", "--texts", "0", status=2)


def names(value: Any) -> set[str]:
    """Every field name in a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


def test_demo_of_both_schemes() -> None:
    done = run("demo", "--scheme", "both", "--texts", "20", "--json")
    assert done.returncode == 0, done.stderr
    both = json.loads(done.stdout)
    assert set(both) == {"ckks", "mpc"}
    assert names(both) <= documented("demo")
    found = both["mpc"]
    assert found["agreement_beyond_twice_the_bound"] == 1.0
    assert found["accuracy_plaintext"] == both["ckks"]["accuracy_plaintext"]
    assert found["max_logit_error"] <= found["error_bound"] <= 1e-3
    assert found["bytes_up"] + found["bytes_down"] < 8000
    assert (found["link_bytes"], found["retries"]) == (0, 0)
    assert found["parties_saw"]["found_in_bytes"] == [[], []]
    assert 0 < found["parties_saw"]["joined_error"] < 1e-6
    shown = run("demo", "--scheme", "mpc", "--texts", "3").stdout
    assert "only both halves together are the embedding" in shown
    assert shown.count("not found") == 2


@pytest.fixture(scope="module")
def parties(models_dir: Path) -> object:
    with LocalParties(models_dir, "--answers", "small=label") as running:
        yield running


def at(parties: LocalParties) -> tuple[str, ...]:
    return ("--scheme", "mpc", "--target", parties.addresses[0], "--target", parties.addresses[1])


def test_predict_at_two_parties(parties: LocalParties, heads: dict[str, Head], rows: Path) -> None:
    found = json.loads(run("predict", *at(parties), "--model", "relu", "--embeddings", rows, "--json").stdout)
    assert set(found) <= documented("predict")
    exact = heads["relu"].evaluate(np.load(rows))
    assert np.abs(np.array(found["logits"]) - exact).max() <= found["error_bound"]
    assert found["stats"]["link_rounds"] == 3
    found = json.loads(run("predict", *at(parties), "--model", "small", "--embeddings", rows, "--json").stdout)
    exact = heads["small"].evaluate(np.load(rows))
    assert found["labels"] == [heads["small"].labels[i] for i in exact.argmax(axis=1)]
    assert found["logits"] is found["probabilities"] is None
    assert run("predict", *at(parties), "--model", "small", "--embeddings", rows).stdout.startswith("     0  class")


def test_targets_that_do_not_fit_the_scheme(parties: LocalParties, address: str, rows: Path) -> None:
    one, other = parties.addresses
    base = ("predict", "--model", "public", "--embeddings", rows, "--target", one)
    assert "expected two parties" in failed(*base, "--scheme", "mpc", status=2)
    assert "expected one server" in failed(*base, "--target", other, status=2)
    assert "twice" in failed(*base, "--target", one, "--scheme", "mpc", status=2)
    assert "scheme='mpc'" in failed(*base)
    assert "`secure-infer party`" in failed(*base, "--target", address, "--scheme", "mpc")


def test_evaluate_at_two_parties(parties: LocalParties, heads: dict[str, Head], tmp_path: Path) -> None:
    x = unit_rows(6, 8)
    labels = [heads["public"].labels[i] for i in heads["public"].evaluate(x).argmax(axis=1)]
    columns = ",".join(f"x{i}" for i in range(8))
    lines = [",".join([*map(repr, row.tolist()), label]) for row, label in zip(x, labels, strict=True)]
    (tmp_path / "data.csv").write_text("\n".join([f"{columns},label", *lines]))
    base = ("evaluate", *at(parties), "--labels", tmp_path / "data.csv", "--model")
    found = json.loads(run(*base, "public", "--json").stdout)
    assert found["encrypted"]["accuracy"]["rate"] == 1.0
    assert found["plan"].startswith("mpc, replicated weights")
    assert "labels alone" in failed(*base, "small", status=2)


def test_plan_of_two_parties(models_dir: Path, parties: LocalParties) -> None:
    base = ("plan", "--scheme", "mpc", models_dir / "relu.head", "--weights", "shared")
    found = json.loads(run(*base, "--batch", "300", "--json").stdout)
    described = {name for step in found["steps"] for name in step} - {"step_rounds", "step_bytes"}
    assert names(found) - described - {"digest"} - set(found["single"]["total_ms"]) <= documented("plan")
    assert found["rounds"] == sum(step["step_rounds"] for step in found["steps"]) == 5
    assert found["batch"]["requests"] == 2
    assert found["batch"]["bytes_up"] == 300 * found["single"]["bytes_up"]
    assert found["single"]["link_bytes"] == sum(step["step_bytes"] for step in found["steps"])
    shown = run(*base, "--link", "wan").stdout
    assert "who learns what:" in shown
    assert "dealer with a party" in shown
    theirs = json.loads(run("plan", *at(parties), "--model", "relu", "--json").stdout)
    assert (theirs["weights"], theirs["digest"]) == ("replicated", found["digest"])
    assert "ask for a larger --error" in failed(*base, "--error", "1e-12")
    assert "positive bound" in failed(*base, "--error", "-1", status=2)


def test_missing_packages_name_their_extra() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'grpc_health': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from secure_infer.cli import main; sys.exit(main(['serve', '--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'secure-infer[server]'" in done.stderr


def test_bench(tmp_path: Path) -> None:
    """One suite by itself: what it prints is documented, and what it writes is what it prints."""
    done = run("bench", "--suite", "throughput", "--quick", "--json", "--out", tmp_path / "made" / "report.json")
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "made" / "report.json").read_bytes()) == found
    (row, *_) = found["suites"]["throughput"]["rows"]
    assert row["counts"]["max_logit_error"] <= row["counts"]["error_bound"]
    answers = row["figures"]["answers_a_second"]
    assert set(found) | set(found["machine"]) | {"id", "figures", "counts"} | set(answers) <= documented("bench")


@pytest.mark.slow
def test_bench_quick() -> None:
    found = json.loads(run("bench", "--json").stdout)
    rows = found["suites"]["cost"]["rows"]
    assert {row["scheme"] for row in rows} == {"plaintext", "ckks", "mpc"}
    for row in rows:
        assert set(row) | set(row["figures"]) | set(row["counts"]) | set(row["security"]) <= documented("bench")
        assert row["counts"]["agreement"] == 1.0


def test_share_model(models_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "shares"
    done = run("share-model", str(models_dir / "relu.head"), "--out", str(out), "--answers", "label", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {
        *("files", "digest", "program", "answers", "fraction_bits", "error_bound", "failure_probability", "rounds"),
    }
    assert [Path(file).exists() for file in found["files"]] == [True, True]
    again = run("share-model", str(models_dir / "relu.head"), "--out", str(out))
    assert again.returncode == 2
    assert "nothing was overwritten" in again.stderr
