"""docs/open-inference.md, executed: its server, with the one model that is asked, then its program in a process of its own,
which prints what it says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from secure_infer.errors import CATALOGUE
from secure_infer_server.callers.policy import read_policy
from secure_infer_server.open_inference.v2 import inference_pb2

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "open-inference.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient[grpc] is not installed")
def test_the_program_prints_what_it_says(tmp_path: Path) -> None:
    (command,) = map(shlex.split, blocks("sh"))
    command[command.index("127.0.0.1:8443")] = "127.0.0.1:0"
    models = command.index("secure_infer/models")
    shutil.copy(ROOT / command[models] / "wdbc.head", tmp_path)
    command[models] = str(tmp_path)
    server = subprocess.Popen(
        [sys.executable, "-m", "secure_infer.cli", *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        program = "\n".join(blocks("python")).replace("127.0.0.1:8443", address)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    finally:
        server.terminate()
        server.communicate()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(blocks("text"))


def test_methods_reasons_and_rules_are_real(tmp_path: Path) -> None:
    methods = {method.name for method in inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert methods <= set(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE))
    reasons = re.findall(r"^\| [A-Z_]+ \| ([^|]*) \|", TEXT, flags=re.MULTILINE)
    assert {name for cell in reasons for name in re.findall(r"`(\w+)`", cell)} <= CATALOGUE.keys()
    (rules,) = blocks("toml")
    tomllib.loads(rules)
    (tmp_path / "policy.toml").write_text(rules)
    assert len(read_policy(tmp_path / "policy.toml").rules) == 1
