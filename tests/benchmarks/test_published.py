"""What the documents say of cost is what the committed report says: README, documents, the page, the pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from secure_infer_benchmarks import command
from secure_infer_benchmarks.report import sections

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "results" / "full.json"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "operations.md")


def test_tables_are_those_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [f"--markdown={path}" for path in DOCUMENTS]
    status = command.run(["report", str(REPORT), *documents, "--check"])
    said = capsys.readouterr().out
    assert status == 0, f"{said}draw them anew: the command is in docs/benchmarks.md"


def test_the_page_is_drawn_from_it() -> None:
    page = (ROOT / "docs" / "report.html").read_text(encoding="utf-8")
    assert hashlib.sha256(REPORT.read_bytes()).hexdigest() in page


def test_every_picture_that_is_shown_can_be_drawn() -> None:
    drawn = {chart.name for chart in sections.pictures(json.loads(REPORT.read_bytes()))}
    folder = ROOT / "docs" / "pictures" / "bench"
    assert {path.stem for path in folder.glob("*.png")} == drawn


def test_it_is_the_whole_of_it() -> None:
    assert set(command.GROUPS["full"]) <= json.loads(REPORT.read_bytes())["suites"].keys()
