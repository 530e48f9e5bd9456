"""Every text on its own through a client: accuracy against the labels, agreement with plaintext, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer.heads import Head
from secure_infer_client import samples
from secure_infer_client.client import Client
from secure_infer_client.prediction import CallStats

MODEL = "icd10-chapter-linear"
STAGES = ("embed", "encrypt", "network", "server", "decrypt", "total")


@dataclass(frozen=True)
class Scored:
    """rows (B, d), logits (B, K), and what each call took. first: the call before, which carries a key where there is one."""

    rows: NDArray[np.float64]
    logits: NDArray[np.float64]
    calls: Sequence[CallStats]
    first: CallStats
    plan: Any
    seconds: float


def score(client: Client, texts: Sequence[samples.Sample]) -> Scored:
    """Embed and score the texts one by one."""
    rows, logits, calls = [], [], []
    client.classify([texts[0].text])
    first = client.last_call.stats
    started = perf_counter()
    for sample in tqdm(texts, desc="texts", unit="text", leave=False, disable=None):
        before = perf_counter()
        row = client.embed([sample.text])
        embed = 1e3 * (perf_counter() - before)
        logits.append(client.predict(row)[0])
        rows.append(row[0])
        calls.append(replace(client.last_call.stats, embed_ms=embed, total_ms=1e3 * (perf_counter() - before)))
    return Scored(np.stack(rows), np.stack(logits), calls, first, client.plan, perf_counter() - started)


def result(scored: Scored, head: Head, texts: Sequence[samples.Sample]) -> dict[str, Any]:
    """What both schemes have, as JSON can hold it; medians a text."""
    found, plain, plan = scored.logits, head.evaluate(scored.rows), scored.plan
    truth = np.array([head.labels.index(sample.label) for sample in texts])
    agree = found.argmax(axis=1) == plain.argmax(axis=1)
    best = np.partition(plain, -2, axis=1)
    sure = best[:, -1] - best[:, -2] > 2 * plan.error_bound
    return {
        "model": MODEL,
        "texts": len(texts),
        "accuracy_encrypted": float((found.argmax(axis=1) == truth).mean()),
        "accuracy_plaintext": float((plain.argmax(axis=1) == truth).mean()),
        "agreement": float(agree.mean()),
        "agreement_beyond_twice_the_bound": float(agree[sure].mean()) if sure.any() else 1.0,
        "texts_beyond_twice_the_bound": int(sure.sum()),
        "max_logit_error": float(np.abs(found - plain).max()),
        "error_bound": plan.error_bound,
        "failure_probability": plan.failure_probability,
        "latency_ms": {stage: median(getattr(call, f"{stage}_ms") for call in scored.calls) for stage in STAGES},
        "bytes_up": int(median(call.bytes_up for call in scored.calls)),
        "bytes_down": int(median(call.bytes_down for call in scored.calls)),
        "security_bits": scored.first.security_bits,
        "seconds": scored.seconds,
    }


def common_lines(r: dict[str, Any], how: str, failure: str, stages: Mapping[str, str] | None = None) -> list[str]:
    """Accuracy, agreement, error and latency. how: "encrypted", say; failure: what is rarer than the error bound; stages: what
    a scheme calls those that have another name there."""
    named = {stage: stage for stage in STAGES} | dict(stages or {})
    latency = r["latency_ms"]
    return [
        f"  accuracy         {r['accuracy_encrypted']:.1%} {how}, {r['accuracy_plaintext']:.1%} plaintext",
        f"  agreement        {r['agreement']:.2%} of labels; {r['agreement_beyond_twice_the_bound']:.2%} of the "
        f"{r['texts_beyond_twice_the_bound']} whose plaintext margin exceeds twice the error bound",
        f"  logit error      {r['max_logit_error']:.1e} at most; stated bound {r['error_bound']:.1e} ({failure})",
        "  latency, median  " + ", ".join(f"{named[stage]} {latency[stage]:.2f}" for stage in STAGES) + " ms",
    ]


LAST_WORD = "Medical terminology, not clinical notes; a demonstration, not a medical device."
