"""The worked examples of docs/mpc.md, executed, and what it says of sizes, held to the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from secure_infer.heads import ReLU
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.crypten import INSTALL
from secure_infer.mpc.crypten.needs import link_bytes, relu_needs, rounds
from secure_infer.mpc.program import Rectify, _traffic
from shared import hidden_head

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "mpc.md").read_text(encoding="utf-8")


def test_every_worked_example_holds() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) >= 7
    scope: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"mpc.md, block {number}", "exec"), scope)


def test_figures_and_commands_are_those_of_the_code() -> None:
    program = compile_head(hidden_head((8, 800, 2), ReLU())).program
    step = next(step for step in program.steps if isinstance(step, Rectify))
    three, sent = _traffic(program, step, 1)
    assert f"{three} rounds and {sent / 800:.1f} bytes a number" in TEXT
    theirs = relu_needs(800)
    assert f"{rounds(theirs)} rounds and {link_bytes(theirs) // 800} bytes" in TEXT
    assert INSTALL in TEXT
