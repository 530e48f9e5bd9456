"""The tutorials and examples, executed as they stand."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_your_scikit_learn_model_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "tutorial-sklearn.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    scope: dict[str, Any] = {}
    address, server = "127.0.0.1:8443", None
    outputs = []
    try:
        for language, block in re.findall(r"```(python|sh)\n(.*?)```", text, flags=re.DOTALL):
            block = block.replace("127.0.0.1:8443", address)
            if language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(block, "tutorial", "exec"), scope)
                outputs.append(printed.getvalue())
                continue
            words = shlex.split(block)
            assert words[0] == "secure-infer"
            command = [sys.executable, "-m", "secure_infer.cli", *words[1:]]
            if words[1] == "serve":
                command[command.index(address)] = "127.0.0.1:0"
                server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                assert server.stdout is not None
                address = json.loads(server.stdout.readline())["address"]
                continue
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            outputs.append(done.stdout)
    finally:
        if server is not None:
            server.terminate()
            server.communicate()
    head, plan, scored, _, evaluated = outputs
    assert "linear(1)" in head
    assert "rejected" in plan or "N=" in plan
    assert float(re.search(r"plaintext ([\d.e-]+)", scored).group(1)) < 1e-3  # type: ignore[union-attr]
    assert float(re.search(r"right ([\d.]+)", scored).group(1)) > 0.93  # type: ignore[union-attr]
    assert "agreement  100.0%" in evaluated


@pytest.mark.parametrize("example", sorted((ROOT / "client" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "refused: model 'chapters' was trained on embedder" in done.stdout
