"""The slot plan: heads with hidden layers, one record a query. `plan` has the layout, `program` the evaluation."""

from secure_infer.ckks.slots.evaluator import SlotEvaluator
from secure_infer.ckks.slots.layout import pack_input
from secure_infer.ckks.slots.plan import SlotPlan

__all__ = ["SlotEvaluator", "SlotPlan", "pack_input"]
