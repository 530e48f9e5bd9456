"""Single queries of any plan: how a client packs one, and what a server's evaluator for it looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import coefficient, seal, slots
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.keymaterial import SwitchingKeys
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.slots import SlotPlan
from secure_infer.errors import PlanRefused


class QueryEvaluator(Protocol):
    """A head compiled for a plan."""

    @property
    def plan(self) -> QueryPlan: ...

    def evaluate(
        self,
        query: Sequence[seal.Ciphertext],
        blind: Callable[[], seal.Ciphertext] | None,
        keys: SwitchingKeys | None = None,
    ) -> list[bytes]:
        """The answers, one a product. blind: returns a fresh blind, used once; None exactly when input-private."""


def pack_input(plan: QueryPlan, x: NDArray[np.float64]) -> NDArray[np.int64]:
    """One row x (d,), already held to the contract, as integer polynomials (ciphertexts, N)."""
    if isinstance(plan, CoefficientPlan):
        return coefficient.pack_input(plan, x)
    if isinstance(plan, SlotPlan):
        return slots.pack_input(plan, x)
    raise PlanRefused(f"{plan.name} plan: this version cannot pack single queries for it")
