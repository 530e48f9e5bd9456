"""docs/observability.md lists what there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secure_infer_server import logs
from secure_infer_server.mpc import metrics as of_parties
from secure_infer_server.observe import calls, collectors, health, server, tracing

PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
_NAME = re.compile(r'(?:counters?|gauges?|histograms)\(\s*"(\w+)"|PREFIX \+ "(\w+)"')


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table that has this word as its first heading."""
    lines = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(heading: str) -> set[str]:
    return {name for row in rows(heading) for name in re.findall(r"`([\w.]+)`", row[0])}


def test_metrics() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (collectors, server, of_parties)]
    found = {first or second for source in sources for first, second in _NAME.findall(source)}
    assert found == names("metric")
    assert len(found) > 35


def test_stages() -> None:
    assert names("stage") == set(calls.STAGES)


def test_attributes_of_spans() -> None:
    assert names("attribute") == set(tracing.ATTRIBUTES)


def test_fields_of_log_lines() -> None:
    assert names("field") == set(logs.FIELDS)


def test_health() -> None:
    assert names("name") == {health.LIVENESS, health.READINESS}


@pytest.mark.parametrize(
    "label", ["method", "model", "plan", "stage", "outcome", "direction", "work", "reason", "source"]
)
def test_labels(label: str) -> None:
    assert any(f"`{label}`" in row[1] for row in rows("metric"))
