"""The tutorials and examples, executed as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from secure_infer.heads import Head
from walkthrough import executed

ROOT = Path(__file__).resolve().parents[1]


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_quickstart_serves_and_asks_as_the_readme_does() -> None:
    commands = re.findall(r"^secure-infer (?:serve|classify) .*$", document("quickstart.md"), flags=re.MULTILINE)
    assert len(commands) == 2
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [line for line in commands if line not in readme]


@pytest.mark.slow
def test_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, classified, explained, printed = executed(document("quickstart.md"))
    assert "Digestive" in classified
    assert "appendicitis" in explained
    assert "bytes of ciphertext up" in printed


def test_your_scikit_learn_model_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    head, plan, scored, _, evaluated = executed(document("tutorial-sklearn.md"))
    assert "linear(1)" in head
    assert "rejected" in plan or "N=" in plan
    assert float(re.search(r"plaintext ([\d.e-]+)", scored).group(1)) < 1e-3  # type: ignore[union-attr]
    assert float(re.search(r"right ([\d.]+)", scored).group(1)) > 0.93  # type: ignore[union-attr]
    assert "agreement  100.0%" in evaluated


needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


@needs_torch
def test_your_torch_model_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    encrypted(executed(document("tutorial-torch.md").partition("## 3.")[0]))


@needs_torch
@pytest.mark.slow
def test_your_torch_model_by_two_parties_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    *single, _, files, program, shared, _ = executed(document("tutorial-torch.md"))
    encrypted(single)
    assert "deep.share" in files
    assert "round" in program
    assert float(re.search(r"plaintext ([\d.e-]+)", shared).group(1)) < 1e-3  # type: ignore[union-attr]
    assert Head.load(tmp_path / "models" / "squared.head").features == 30


def encrypted(printed: list[str]) -> None:
    head, plan, scored = printed
    assert "linear(2)" in head
    assert "chosen:" in plan
    assert float(re.search(r"plaintext ([\d.e-]+)", scored).group(1)) < 1e-3  # type: ignore[union-attr]
    assert float(re.search(r"right ([\d.]+)", scored).group(1)) > 0.93  # type: ignore[union-attr]


SHOWS = {
    "asyncio_service": "XI Digestive system\t",
    "fastapi_endpoint": '"label":"XI Digestive system"',
    "fhir_condition": '"code": "XI"',
    "pandas_batch": "199 of 200 rows have an answer",
    "plain_script": "bytes went out, encrypted (128-bit)",
    "sklearn_pipeline": "as in plaintext 100.0%",
    "own_embedder": "refused: model 'chapters' was trained on embedder",
    "triton_client": "bytes of ciphertext for 8 rows",
}
NEEDS = {"triton_client": "tritonclient", "fastapi_endpoint": "fastapi", "pandas_batch": "pandas"}


@pytest.mark.parametrize("example", sorted((ROOT / "client" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(example.stem)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert SHOWS[example.stem] in done.stdout
