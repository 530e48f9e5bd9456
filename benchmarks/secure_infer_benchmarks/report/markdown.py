"""Blocks of figures in a Markdown file, rewritten from a report, or held against it.

    <!-- bench:cost -->
    ...
    <!-- /bench -->

What stands between the two lines belongs to the report; everything else to whoever writes the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_infer import whole
from secure_infer.errors import SettingsError
from secure_infer_benchmarks.report import blocks

BLOCK = re.compile(r"^<!-- bench:(?P<name>\S+) -->\n(?P<held>.*?)^<!-- /bench -->$", re.DOTALL | re.MULTILINE)
BEGIN = re.compile(r"^<!-- bench:\S+ -->$", re.MULTILINE)
END = re.compile(r"^<!-- /bench -->$", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """Of a file: its blocks, those that are not what the report says, and the whole text as it should be."""

    path: Path
    blocks: list[str]
    differ: list[str]
    text: str


def held_against(report: Mapping[str, Any], path: Path) -> Found:
    """Raises SettingsError for a file that cannot be read, has no block, or one that does not end or cannot be filled."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"{path} cannot be read as Markdown: {type(problem).__name__}") from None
    found = list(BLOCK.finditer(text))
    nested = any(BEGIN.search(block["held"]) for block in found)
    if nested or len(BEGIN.findall(text)) != len(found) or len(END.findall(text)) != len(found):
        raise SettingsError(
            f"{path}: every `<!-- bench:NAME -->` takes a `<!-- /bench -->` after it, each on a line of its own"
        )
    if not found:
        raise SettingsError(
            f"{path}: expected blocks `<!-- bench:NAME -->` ... `<!-- /bench -->`; NAME: {', '.join(blocks.BLOCKS)}"
        )
    drawn = {block["name"]: blocks.block(report, block["name"]) for block in found}
    differ = [block["name"] for block in found if block["held"].strip() != drawn[block["name"]].strip()]
    renewed = BLOCK.sub(lambda block: f"<!-- bench:{block['name']} -->\n{drawn[block['name']]}<!-- /bench -->", text)
    return Found(path, [block["name"] for block in found], differ, renewed)


def rewrite(found: Found) -> None:
    """Only where something differs."""
    if found.differ:
        whole.write(found.path, found.text.encode(), found.path.stat().st_mode & 0o777)
