"""A batch counts with every place of its plan: where an allowance has no room for that, its rows are asked one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from secure_infer.errors import BudgetExhausted
from secure_infer_client import Client
from secure_infer_server.app import App
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings
from shared import linear_head, unit_rows


def test_rows_are_asked_one_by_one_where_no_batch_is_ever_taken(tmp_path: Path) -> None:
    head, rows = linear_head(384, 10), unit_rows(450, 384)
    (tmp_path / "models").mkdir()
    head.save(tmp_path / "models" / "icd.head")
    gate = GuardedGate(GuardSettings(budgets=BudgetSettings(tmp_path / "ledger", Allowance(total=500), block=1)))
    workers = WorkerSettings(count=0)
    app = App(Settings(tmp_path / "models", "127.0.0.1", 0, insecure=True, blinds_per_key=0, workers=workers), gate)
    gate.start()
    address = app.start()
    try:
        with Client(address, model="icd") as client:
            assert min(plan.records for plan in client.batch_plans) > 500
            found = client.predict(rows)
            assert np.abs(found - head.evaluate(rows)).max() <= client.plan.error_bound
            assert client.last_call.stats.plan.startswith("batch ")  # what it tried first
            assert not client.batch_plans
            with pytest.raises(BudgetExhausted, match="50 left of the allowance of 500"):
                client.predict(rows[:60])
    finally:
        app.stop()
        gate.close()
