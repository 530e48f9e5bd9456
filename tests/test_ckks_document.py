"""The worked examples of docs/ckks.md, executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "ckks.md"


def test_every_worked_example_holds() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 8
    scope: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{DOCUMENT.name}, block {number}", "exec"), scope)


def test_every_plan_is_explained() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for heading in ("The coefficient plan", "Monomials", "The slot plan", "The batch plan"):
        assert f"## {heading}" in text
