"""What range costs: linear heads under several L2 penalties, their accuracy beside what encryption has to pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.coefficient import planner
from secure_infer.ckks.plan import DEFAULT_SMUDGING
from secure_infer.distill import train
from secure_infer.distill.evaluate import Classes, Floats
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import InputContract, Linear


def penalties(
    rows: train.Rows,
    taught: Floats,
    parts: dict[str, tuple[NDArray[np.float32], Classes]],
    contract: InputContract,
    settings: train.Settings,
    step: train.Step,
) -> list[dict[str, Any]]:
    """One entry a penalty of `settings.penalties`, smallest first: accuracy on each of `parts`, R, |W|_F, `cost`."""
    entries = []
    for index, penalty in enumerate(sorted(settings.penalties)):
        (linear,) = train.linear(rows, taught, replace(settings, linear_penalty=penalty), lambda *_: None)
        accuracies = {
            name: round(float((linear(x.astype(np.float64)).argmax(axis=1) == y).mean()), 5)
            for name, (x, y) in parts.items()
        }
        entries.append({"penalty": penalty} | accuracies | cost(linear, contract))
        step(index + 1, len(settings.penalties))
    return entries


def cost(linear: Linear, contract: InputContract, smudging: int = DEFAULT_SMUDGING) -> dict[str, Any]:
    """What a linear head costs under encryption, model private too: R, |W|_F, and the cheapest plan's figures.

    `plan` is None when no plan gives that many smudging bits.
    """
    found: dict[str, Any] = {
        "range": round(planner.largest_logit(linear, contract), 4),
        "frobenius_norm": round(float(np.linalg.norm(linear.weight)), 4),
        "plan": None,
    }
    try:
        plan = planner.choose(linear, contract, smudging=smudging)
    except UnsupportedHead:
        return found
    return found | {
        "plan": str(plan.parameters),
        "smudging_bits": plan.smudging_bits,
        "error_bound": plan.error_bound,
        "bytes_up": plan.query_bytes,
        "bytes_down": plan.answer_bytes,
    }
