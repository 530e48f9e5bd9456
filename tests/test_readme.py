"""The README's own commands and code, executed."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from secure_infer.cli import SUMMARIES
from secure_infer.mpc.crypten import INSTALL

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def command(line: str) -> list[str]:
    """A README line as this environment's command."""
    words = shlex.split(line)
    assert words[0] == "secure-infer"
    return [sys.executable, "-m", "secure_infer.cli", *words[1:]]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    mentioned = set(re.findall(r"\bmake ([a-z-]+)`", README)) | set(
        re.findall(r"^make ([a-z-]+)$", README, flags=re.MULTILINE)
    )
    assert {"demo", "test", "bench"} <= mentioned <= targets


def test_commands_exist() -> None:
    mentioned = set(re.findall(r"secure-infer\s([a-z][a-z-]*)", README))
    assert mentioned
    assert mentioned <= set(SUMMARIES)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]


def test_the_commands_and_the_ten_lines_work(tmp_path: Path) -> None:
    serve, classify, score = (
        next(block.strip() for block in blocks("sh") if block.startswith(f"secure-infer {name} "))
        for name in ("serve", "classify", "score")
    )
    serve = serve.replace("127.0.0.1:8443", "127.0.0.1:0")
    with subprocess.Popen(
        command(serve), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            done = subprocess.run(
                command(classify.replace("127.0.0.1:8443", address)), capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert "Digestive" in done.stdout
            (tmp_path / "cohort.csv").write_text("visit,note\n1,Acute appendicitis\n2,\n")
            done = subprocess.run(
                command(score.replace("127.0.0.1:8443", address)),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert "Digestive" in (tmp_path / "scored.csv").read_text()
            assert (tmp_path / "scored.csv.rejected.jsonl").exists()
            snippet, own = blocks("python")
            program = snippet.replace("127.0.0.1:8443", address)
            ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, ran.stderr
            assert "CallStats" in ran.stdout
            made = subprocess.run([sys.executable, "-c", own], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert made.returncode == 0, made.stderr
            assert (
                "chosen:"
                in subprocess.run(
                    command("secure-infer plan mine.head"), cwd=tmp_path, capture_output=True, text=True, timeout=60
                ).stdout
            )
        finally:
            server.terminate()


def test_the_commands_of_secret_sharing_work() -> None:
    block = next(block for block in blocks("sh") if block.startswith("secure-infer dealer"))
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", block))):
        with socket.create_server(("127.0.0.1", 0)) as free:
            block = block.replace(f":{port}", f":{free.getsockname()[1]}")
    *processes, classify = block.strip().splitlines()
    with ExitStack() as stack:
        for line in processes:
            started = stack.enter_context(
                subprocess.Popen(command(line), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            )
            stack.callback(started.terminate)
            assert started.stdout is not None
            assert json.loads(started.stdout.readline())["event"] == "ready"
        done = subprocess.run(command(classify), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Digestive" in done.stdout


def test_crypten_is_installed_as_the_error_says() -> None:
    assert INSTALL in README


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_files_that_documents_name_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|secure_infer|client|server|docs)/[\w./-]+\.\w+)`", text)
    assert not [path for path in named if not (ROOT / path).exists()]
    assert "{{" not in text
