"""The form of reports: medians and quartiles of all samples, ratios by rounds, files that say what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import SettingsError
from secure_infer_benchmarks import figures

SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=1000)


@given(SAMPLES)
def test_a_figure_is_that_of_all_its_samples(samples: list[float]) -> None:
    found = figures.figure(samples)
    assert found["low"] <= found["median"] <= found["high"]
    assert found["median"] == pytest.approx(float(np.median(samples)))
    assert found["repeats"] == len(samples)
    assert len(found["samples"]) == min(len(samples), figures.MOST_SAMPLES)
    assert found["samples"][0] == pytest.approx(samples[0], rel=1e-4)
    assert found["samples"][-1] == pytest.approx(samples[-1], rel=1e-4)


@given(SAMPLES, st.floats(0.1, 10.0))
def test_a_slow_moment_cancels_in_a_ratio(samples: list[float], times: float) -> None:
    found = figures.ratio([times * sample for sample in samples], samples)
    assert found["low"] == pytest.approx(times)
    assert found["high"] == pytest.approx(times)
    assert found["unit"] == "x"


def test_a_ratio_takes_pairs() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        figures.ratio([1.0, 2.0], [1.0])


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = figures.report("secure-infer bench", {"cost": {"rows": []}}, figures.machine())
    figures.save(report, tmp_path / "new" / "report.json")
    assert figures.load(tmp_path / "new" / "report.json") == report


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"format": "another"}), "\udc80"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match="report"):
        figures.load(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        figures.load(tmp_path / "none.json")
