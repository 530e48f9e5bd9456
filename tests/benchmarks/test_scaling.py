"""The suite of axes: rows of both schemes on each of them, what predictions are compared with, and the table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from secure_infer_benchmarks.figures import figure
from secure_infer_benchmarks.scaling import ckks, clients, shapes, shared
from secure_infer_benchmarks.scaling import suite as scaling
from secure_infer_benchmarks.scaling import table as tables
from secure_infer_benchmarks.scaling.shapes import Shapes, row
from secure_infer_benchmarks.scaling.suite import Settings

BASE = (24, 8, 3)
SMALL = Settings(
    Shapes(d=(24, 12), h=(8,), k=(3,)),
    queries=2,
    records=(1, 5),
    calls=1,
    clients=(1, 2),
    slices=1,
    seconds=0.1,
    sessions=1,
)


@pytest.fixture(scope="module")
def suite() -> dict[str, Any]:
    """A base of 24 -> 8 -> 3, few queries of everything."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (shapes, clients, ckks, shared):
            patch.setattr(module, "BASE", BASE)
        patch.setattr(clients, "SETTLE", 0.1)
        return scaling.run(SMALL)


def test_both_schemes_have_a_row_at_every_value_of_every_axis(suite: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in suite["rows"]}
    values = {"d": (24, 12), "h": (8,), "K": (3,), "batch": (1, 5), "clients": (1, 2), "sessions": (1,)}
    assert set(rows) == {
        f"{axis}={value}/{scheme}" for axis, some in values.items() for value in some for scheme in ("ckks", "mpc")
    }
    assert len(rows) == len(suite["rows"])
    assert rows["d=12/ckks"]["shape"] == "12 -> 8 -> 3"
    assert suite["base"] == "24 -> 8 -> 3"


def test_predictions_are_of_a_figure_of_their_row(suite: dict[str, Any]) -> None:
    for found in suite["rows"]:
        counts = found["counts"]
        assert found["figures"]
        unpredicted = found["axis"] == "sessions" or found["id"] in ("clients=1/mpc", "clients=2/mpc")
        assert ("predicts" not in found) == unpredicted
        if unpredicted:
            continue
        rate = found["axis"] == "clients"
        of_scheme = {"ckks": "server_ms", "mpc": "computing_ms"}[found["scheme"]]
        assert found["predicts"] == ("records_a_second" if rate else of_scheme)
        predicted = counts["predicted_records_a_second" if rate else "predicted_ms"]
        assert counts["measured_to_predicted"] == found["figures"][found["predicts"]]["median"] / predicted
        if not rate:
            assert counts["predicted_call_ms"] > counts["predicted_ms"]


def test_answers_were_right_and_bytes_counted(suite: dict[str, Any]) -> None:
    for found in suite["rows"]:
        counts = found["counts"]
        if "max_logit_error" in counts:
            assert counts["max_logit_error"] <= counts["error_bound"]
        if found["axis"] != "sessions":
            assert counts["bytes_up"] > 0 < counts["bytes_down"]
    sessions = {row["scheme"]: row["counts"] for row in suite["rows"] if row["axis"] == "sessions"}
    assert sessions["ckks"]["key_bytes"] > 0 == sessions["mpc"]["key_bytes"]


def test_the_suite_is_json_and_its_table_has_every_row(suite: dict[str, Any]) -> None:
    assert json.loads(json.dumps(suite)) == suite
    lines = scaling.table(suite).splitlines()
    assert len([line for line in lines if line.startswith("  ") and ("ckks" in line or "mpc" in line)]) >= len(
        suite["rows"]
    )
    assert [line.split(",")[0] for line in lines if "to predicted" in line] == list(tables.IN_WORDS)


def test_a_row_says_how_far_its_prediction_is_off() -> None:
    figures = {"server_ms": figure([3.0]), "records_a_second": figure([50.0], "1/s", "higher")}
    found = row("d", 384, "ckks", "slots", figures, {"bytes_up": 7}, predicts=("server_ms", 2.0))
    assert found["counts"] == {"bytes_up": 7, "predicted_ms": 2.0, "measured_to_predicted": 1.5}
    rate = row("clients", 4, "ckks", "slots", figures, {}, predicts=("records_a_second", 100.0))
    assert rate["counts"] == {"predicted_records_a_second": 100.0, "measured_to_predicted": 0.5}
    text = scaling.table({"rows": [found, rate], "base": "a", "links": "b"})
    assert "0.50 !" in text
    assert "1.50 !" not in text


def test_the_base_is_on_every_axis_and_measured_once() -> None:
    points = list(Shapes().points())
    assert [axis for axis, _, shape in points if shape == shapes.BASE] == ["d", "h", "K"]
    assert len(Shapes().all()) == len(points) - 2
