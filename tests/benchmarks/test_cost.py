"""The suite that every other is read beside: queries in both schemes, and the plaintext call as their unit."""

from __future__ import annotations

import pytest

from secure_infer_benchmarks.cost import suite
from secure_infer_benchmarks.cost.table import table
from secure_infer_benchmarks.figures import Suite


@pytest.fixture(scope="module")
def found() -> Suite:
    return suite.run(suite.Settings(rounds=3, heads=("icd10-chapter-linear", "relu-384-64-10")))


def test_every_way_is_there_and_answers_rightly(found: Suite) -> None:
    rows = {row["id"]: row for row in found["rows"]}
    assert next(iter(rows)) == "icd10-chapter-linear/plaintext"
    assert "icd10-chapter-linear/ckks, few bytes" not in rows  # the quickest plan is the smallest
    assert "no polynomial" in rows["relu-384-64-10/ckks"]["reason"]
    measured = [row for row in found["rows"] if "reason" not in row]
    assert len(measured) == 1 + 2 + 3 + 1 + 3
    for row in measured:
        counts = row["counts"]
        assert counts["agreement"] == 1.0
        if counts["max_logit_error"] is not None and row["scheme"] != "plaintext":
            assert counts["max_logit_error"] <= counts["error_bound"]


def test_the_plaintext_call_is_the_unit(found: Suite) -> None:
    plain = [row for row in found["rows"] if row["scheme"] == "plaintext"]
    assert all(row["figures"]["ratio"]["median"] == 1.0 for row in plain)
    assert not any(row["security"]["input_private"] for row in plain)


def test_what_is_private_is_said(found: Suite) -> None:
    said = {row["id"]: row["security"] for row in found["rows"] if "reason" not in row}
    assert said["icd10-chapter-linear/ckks"]["model_private"]
    assert not said["icd10-chapter-linear/ckks, input private"]["model_private"]
    assert "both parties hold it" in said["relu-384-64-10/mpc"]["model_hidden_from"]
    assert "each party" in said["relu-384-64-10/mpc, shared weights"]["model_hidden_from"]


def test_the_table_has_every_row(found: Suite) -> None:
    text = table(found)
    assert all(row["id"] in text for row in found["rows"])
