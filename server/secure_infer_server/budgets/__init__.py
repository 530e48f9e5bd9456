"""Query budgets per identity and model, and the answers that identical requests get again; see `Budgets`."""

from secure_infer.errors import BudgetExhausted, BudgetUnavailable, RequestIdReused
from secure_infer_server.budgets.budgets import Budgets, Charge
from secure_infer_server.budgets.capacity import batch_capacity, single_capacity
from secure_infer_server.budgets.ledger import Used
from secure_infer_server.budgets.settings import Allowance, BudgetSettings

__all__ = [
    "Allowance",
    "BudgetExhausted",
    "BudgetSettings",
    "BudgetUnavailable",
    "Budgets",
    "Charge",
    "RequestIdReused",
    "Used",
    "batch_capacity",
    "single_capacity",
]
