"""docs/deidentification.md states what the benchmark measures, to the digit."""

from __future__ import annotations

import json
from pathlib import Path

from secure_infer_benchmarks import deidentification

DOCUMENT = Path(__file__).parents[1] / "docs" / "deidentification.md"


def test_the_documented_table_is_the_measured_one() -> None:
    report = deidentification.report()
    assert deidentification.table(report) in DOCUMENT.read_text(encoding="utf-8")
    assert json.loads(json.dumps(report)) == report


def test_the_documented_draw_is_the_published_one() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"seed {deidentification.PUBLISHED_SEED}" in text
    assert f"{deidentification.PUBLISHED_SIZE:,} texts" in text
