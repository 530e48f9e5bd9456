"""The coefficient plan: affine heads by one product, without rotations or evaluation keys. `plan` has the algorithm."""

from secure_infer.ckks.coefficient.evaluator import LinearEvaluator, pack_input
from secure_infer.ckks.coefficient.plan import CoefficientPlan

__all__ = ["CoefficientPlan", "LinearEvaluator", "pack_input"]
