"""The suite of plans, in short."""

from __future__ import annotations

from secure_infer_benchmarks import plans
from secure_infer_benchmarks.engine import Case
from secure_infer_benchmarks.synthetic import unit_norm_head


def test_a_case_is_measured() -> None:
    row = {"id": "16 -> 3", "group": "published"} | plans.measured(Case("16 -> 3", unit_norm_head(16, 3), 18), 0)
    counts = row["counts"]
    assert counts["logits"] == 3 * plans.QUERIES
    assert counts["max_logit_error"] <= counts["error_bound"]
    assert row["security"]["smudging_bits"] >= 18
    assert "16 -> 3" in plans.table({"rows": [row, {"id": "another", "reason": "too large"}]})
