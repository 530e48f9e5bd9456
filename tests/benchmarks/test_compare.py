"""Two reports held against each other: the test itself, what it is given, and what comes of it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmark_reports import MACHINE, report
from secure_infer.errors import SettingsError
from secure_infer_benchmarks import compare, figures
from secure_infer_benchmarks.compared import table
from secure_infer_benchmarks.ranks import holm, mann_whitney

SAMPLE = st.lists(st.integers(0, 12).map(float), min_size=2, max_size=30)  # few values, so many ties


@given(SAMPLE, SAMPLE)
@settings(max_examples=100, deadline=None)
def test_the_rank_test_is_that_of_scipy(a: list[float], b: list[float]) -> None:
    if len({*a, *b}) == 1:
        assert mann_whitney(a, b) == 1.0
        return
    expected = stats.mannwhitneyu(a, b, method="asymptotic", alternative="two-sided").pvalue
    assert mann_whitney(a, b) == pytest.approx(expected, abs=1e-12)


def test_holm_rejects_step_by_step() -> None:
    # By hand: 3 x 0.01, then 2 x 0.02, then 0.04, each at least the one before.
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([]) == []
    with pytest.raises(ValueError, match="both samples"):
        mann_whitney([], [1.0])


def test_the_same_report_is_unchanged() -> None:
    found = report()
    told = compare.compare(found, found)
    assert not told["regressions"]
    assert not told["improvements"]
    assert not told["unsure"]
    assert told["plaintext_b_over_a"] == 1.0


def test_two_runs_of_the_same_hardly_ever_differ() -> None:
    told = [compare.compare(report(2 * seed), report(2 * seed + 1)) for seed in range(5)]
    assert sum(bool(one["regressions"] or one["improvements"]) for one in told) <= 1


def test_what_is_slower_is_found_and_the_reverse_is_an_improvement() -> None:
    a, b = report(1, suites=("cost",)), report(2, suites=("cost",), slower=1.3)
    told = compare.compare(a, b)
    slower = {change["row"] for change in told["regressions"] if change["figure"] == "ratio"}
    assert slower == {
        row["id"] for row in a["suites"]["cost"]["rows"] if row["scheme"] != "plaintext" and "figures" in row
    }
    assert not told["improvements"]
    back = compare.compare(b, a)
    assert len(back["improvements"]) == len(told["regressions"])
    assert not back["regressions"]
    assert compare.compare(a, b, threshold=0.5)["regressions"] == []


def test_a_slow_hour_of_the_machine_cancels() -> None:
    a = report(1, suites=("cost", "scaling"))
    b = deepcopy(a)
    for suite in b["suites"].values():
        for row in suite["rows"]:
            for name, figure in row.get("figures", {}).items():
                if figure["unit"] == "ms":
                    row["figures"][name] = figures.figure([1.4 * sample for sample in figure["samples"]])
                elif figure["better"] == "higher":
                    row["figures"][name] = figures.figure(
                        [x / 1.4 for x in figure["samples"]], figure["unit"], "higher"
                    )
    told = compare.compare(a, b)
    assert told["plaintext_b_over_a"] == pytest.approx(1.4, rel=1e-3)
    assert not told["regressions"]
    assert not told["unsure"]
    assert "1.40 times as long in B" in table(told)


def test_other_machines_times_are_not_compared() -> None:
    a, b = report(1), report(2, slower=1.3)
    b["machine"] = MACHINE | {"processor": "Another CPU"}
    told = compare.compare(a, b)
    assert told["machines_differ"] == ["processor: Example CPU @ 2.10GHz and Another CPU"]
    assert {change["unit"] for change in told["regressions"]} == {"x", "plaintext calls"}
    assert table(told).startswith("the machines differ")


def one(name: str, **counts: Any) -> dict[str, Any]:
    rows = [{"id": "a", "figures": {}, "counts": counts}, {"id": name}]
    return {"format": figures.FORMAT, "machine": MACHINE, "suites": {"cost": {"rows": rows}}}


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"bytes_up": (100, 101)}, "regressions"),
        ({"bytes_up": (101, 100)}, "improvements"),
        ({"rounds": (3, 4)}, "regressions"),
        ({"server_memory_bytes": (100, 104)}, None),
        ({"server_memory_bytes": (100, 106)}, "regressions"),
        ({"accuracy": (0.720, 0.714)}, "regressions"),
        ({"agreement": (0.999, 1.0)}, "counts"),
        ({"max_logit_error": (1e-4, 2e-4), "error_bound": (1e-3, 1e-3)}, None),
        ({"max_logit_error": (1e-4, 2e-3), "error_bound": (1e-3, 1e-3)}, "regressions"),
        ({"records": (4096, 2048)}, "counts"),
        ({"bytes_up": (None, 100)}, None),
    ],
)
def test_counts(counts: dict[str, tuple[Any, Any]], verdict: str | None) -> None:
    a, b = (one("a2", **{name: pair[side] for name, pair in counts.items()}) for side in (0, 1))
    told = compare.compare(a, b)
    held = [name for name in ("regressions", "improvements", "counts", "unsure") if told[name]]
    assert held == ([] if verdict is None else [verdict])


def test_rows_of_one_report_alone_and_few_repeats_are_told() -> None:
    a, b = one("old"), one("new")
    a["suites"]["cost"]["rows"][0]["figures"] = {"call_ms": figures.figure([1.0, 2.0])}
    b["suites"]["cost"]["rows"][0]["figures"] = {"call_ms": figures.figure([9.0, 9.0])}
    told = compare.compare(a, b)
    assert (told["only_in_a"], told["only_in_b"]) == (["cost/old"], ["cost/new"])
    assert (told["tested"], told["too_few_repeats"]) == (0, 1)
    assert "1 figures have too few repeats" in table(told)


def test_the_command_ends_with_1_when_something_regressed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, found in (("a", report(1, suites=("cost",))), ("b", report(2, suites=("cost",), slower=1.3))):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert compare.run([a, b]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("regressions")
    assert compare.run([b, a, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["regressions"] == []
    with pytest.raises(SettingsError, match="--threshold"):
        compare.run([a, b, "--threshold", "-1"])


def test_reports_without_a_suite_in_common_are_refused() -> None:
    with pytest.raises(SettingsError, match="no suite in common: cost and start"):
        compare.compare(report(suites=("cost",)), report(suites=("start",)))


def test_stages_are_held_in_plaintext_calls_of_their_round() -> None:
    row = {"call_ms": figures.figure([4.0, 8.0]), "ratio": figures.figure([2.0, 2.0], "x")}
    assert compare._in_calls(figures.figure([1.0, 2.0]), row) == [0.5, 0.5]
    assert np.allclose(compare._in_calls(figures.figure([3.0]), row), [1.0])
