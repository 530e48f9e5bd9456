"""How many records a request counts as: what its plan has room for, whatever the client says is in it.

The server sees ciphertexts only, so places that are said to be empty cannot be told from full ones.
"""

from __future__ import annotations

from secure_infer.ckks.batch.plan import BatchPlan


def single_capacity(queries: int) -> int:
    """Records of a call with that many single queries: one each."""
    return queries


def batch_capacity(plan: BatchPlan) -> int:
    """Records of one batch: every place of the plan. 100 records in a batch of 4096 places count as 4096."""
    return plan.records
