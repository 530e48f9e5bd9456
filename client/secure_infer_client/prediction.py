"""What a call returns, and what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import ModelSpec
from secure_infer_client.text.prepare import Prepared

PLANS = " + "
"""Between the plans of a call, in words."""


@dataclass(frozen=True)
class Prediction:
    """One classified text.

    label: the most probable class (multilabel: those that hold, joined; regression: the numbers).
    probability: of the most probable label, calibrated, in [0, 1]; NaN for regression. logits: float64 (K,).
    margin: the best logit's lead (|logit| for a binary head). error_bound: stated bound on each logit's error.
    certain: margin > 2 * error_bound, so that encryption cannot have changed the label; None without a margin.
    removed: what de-identification took out of the text before it was embedded; it never leaves this machine.
    truncated: whether any of the text was left out (it never is: long text is embedded in windows).
    windows: windows the text was embedded in.
    abstain: the probability is below the model's advice (`ModelSpec.abstain_below`): better left to a person.
    parts: with long_text="apart", one Prediction a window of a text that has several; empty otherwise.

    Of a model that answers with labels alone there is the label and nothing to weigh it by: probability and margin are
    NaN, logits are empty, certain is None and abstain False. error_bound then is that of the logits nobody saw.
    """

    label: str
    probability: float
    logits: NDArray[np.float64]
    margin: float
    error_bound: float
    certain: bool | None
    removed: tuple[Any, ...] = ()
    truncated: bool = False
    windows: int = 1
    abstain: bool = False
    parts: tuple[Prediction, ...] = ()


@dataclass(frozen=True)
class CallStats:
    """Cost of one `predict` or `classify` call. Times in milliseconds; bytes are message sizes.

    Where rows of several callers went together, it is the cost of all of them: `callers` says how many, `records` their rows.

    embed_ms: text to embedding. encrypt_ms: packing and encryption. network_ms: the calls less the server's own time.
    server_ms: the server's handling. decrypt_ms: reading answers. bytes_up and bytes_down exclude the public key, which
    `key_bytes` counts when this call uploaded it. rounds: calls of the server. plan: the parameters in words, of all plans
    used; error_bound: the largest of theirs, smudging_bits the least. Of a batch, encrypt_ms and server_ms overlap.
    blinds_ready, blinds_inline: blinds the server had prepared, and those it made while this call waited.

    Of two parties: bytes_up and bytes_down are those of both halves, server_ms is the slower party's, of which it spent
    wait_ms waiting for correlations, a lane and the other party's agreement. link_rounds, link_bytes: rounds between the
    parties, and bytes that each sent the other in them. correlation_bytes: from the dealer, used up by both.

    retries: calls made again, because a server was not reached or was busy; of two parties also requests asked a second time
    because an answer was out of range.
    """

    embed_ms: float
    encrypt_ms: float
    network_ms: float
    server_ms: float
    decrypt_ms: float
    total_ms: float
    bytes_up: int
    bytes_down: int
    key_bytes: int
    plan: str
    security_bits: int
    smudging_bits: int
    rounds: int
    records: int
    blinds_ready: int
    blinds_inline: int
    server_load_ms: float
    server_evaluate_ms: float
    error_bound: float
    link_rounds: int = 0
    link_bytes: int = 0
    correlation_bytes: int = 0
    retries: int = 0
    wait_ms: float = 0.0
    callers: int = 1

    def __add__(self, other: CallStats) -> CallStats:
        """The cost of both calls."""
        plans = dict.fromkeys([*self.plan.split(PLANS), *other.plan.split(PLANS)])
        together: dict[str, Any] = {
            "plan": PLANS.join(plans),
            "security_bits": min(self.security_bits, other.security_bits),
            "smudging_bits": min(self.smudging_bits, other.smudging_bits),
            "error_bound": max(self.error_bound, other.error_bound),
        }
        summed = {f.name for f in fields(self)} - together.keys()
        return replace(self, **together, **{name: getattr(self, name) + getattr(other, name) for name in summed})


@dataclass(frozen=True)
class Call:
    """The latest call of a client."""

    stats: CallStats
    model_digest: str


def predictions(
    spec: ModelSpec, error_bound: float, logits: NDArray[np.float64], prepared: Prepared
) -> list[Prediction]:
    """One Prediction a text, from the logits (R, K) of its prepared rows."""
    probabilities, margins, decided = spec.probabilities(logits), spec.margins(logits), spec.decide(logits)
    parts: list[list[Prediction]] = [[] for _ in prepared.removed]
    for row, text in enumerate(prepared.owner):
        probability = float(probabilities[row].max())
        parts[text].append(
            Prediction(
                label=decided[row],
                probability=probability,
                logits=logits[row],
                margin=float(margins[row]),
                error_bound=error_bound,
                certain=bool(margins[row] > 2 * error_bound),
                removed=prepared.removed[text],
                windows=prepared.windows[text],
                abstain=spec.abstain_below is not None and probability < spec.abstain_below,
            )
        )
    surest = [max(own, key=lambda part: part.probability) for own in parts]
    return [replace(best, parts=tuple(own) if len(own) > 1 else ()) for best, own in zip(surest, parts, strict=True)]


def label_predictions(error_bound: float, labels: list[str], prepared: Prepared) -> list[Prediction]:
    """One Prediction a text, from the labels of its rows, one a text."""
    return [
        Prediction(
            label=label,
            probability=math.nan,
            logits=np.empty(0),
            margin=math.nan,
            error_bound=error_bound,
            certain=None,
            removed=removed,
            windows=windows,
        )
        for label, removed, windows in zip(labels, prepared.removed, prepared.windows, strict=True)
    ]
