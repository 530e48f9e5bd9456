"""Batches end to end: a server process of its own, the SDK as a client beside it, rows as the client divides them.

full: as many rows as the largest batch offered holds. partial: a row more than half of the smallest, which takes as long as
all of it. Smudging of about two bits reduces what the noise of answers tells of the weights; it does not hide it.
Memory is that of the server's processes. Run with OPENBLAS_NUM_THREADS=1 for figures of one thread.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head
from secure_infer_benchmarks.cost.ways import security
from secure_infer_benchmarks.figures import Row, Suite, figure
from secure_infer_benchmarks.memory import resident
from secure_infer_benchmarks.synthetic import inputs, square_head, unit_norm_head
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_client.prediction import CallStats

SMUDGING = (2, 20)
LABELS = {2: "reduces leakage, does not remove it", 20: "hides the weights behind noise"}


@dataclass(frozen=True)
class Case:
    """A head and what it is called."""

    name: str
    head: Head


def cases() -> list[Case]:
    """The published workloads."""
    return [
        Case("384 -> 10", unit_norm_head(384, 10)),
        Case("384 -> 64 -> 10 square", square_head(384, 64, 10)),
        Case("ICD-10 384 -> 256 -> 21", Head.load(models.path() / "icd10-chapter.head")),
    ]


def measure(quick: bool) -> Suite:
    """Every case at every smudging; a quick run leaves the faint smudging out."""
    grid = [(case, bits) for case in cases() for bits in SMUDGING]
    bar = tqdm(grid[1::2] if quick else grid, desc="batches", leave=False, disable=None)
    return {"rows": [row for case, bits in bar for row in measured(case, bits, quick)]}


def measured(case: Case, smudging: int, quick: bool) -> list[Row]:
    """A case's rows at that smudging: a full batch and a partial one."""
    with tempfile.TemporaryDirectory() as directory:
        case.head.save(Path(directory) / "model.head")
        with (
            LocalServer(Path(directory), "--batch-smudging", str(smudging), "--blinds-per-key", "4") as server,
            Client(server.address, model="model", timeout=600) as client,
        ):
            before = sum(resident(server.ready["pid"]).values())
            plans = client.batch_plans
            sizes = {"full": plans[-1].records, "partial": plans[0].records // 2 + 1}
            asked = {kind: _asked(client, case.head, count, 1 if quick else 3) for kind, count in sizes.items()}
            after = sum(resident(server.ready["pid"]).values())
    shared = {
        "server_memory_bytes": after,
        "server_memory_bytes_before": before,
    }
    return [
        {
            "id": f"{case.name}/ckks, s = {smudging}/{kind}",
            "head": case.name,
            "scheme": "ckks",
            "plan": found["plan"],
            "security": security(plans[-1]) | {"note": LABELS[smudging]},
            "figures": found["figures"],
            "counts": {"records": sizes[kind], **found["counts"], **shared},
        }
        for kind, found in asked.items()
    ]


def _asked(client: Client, head: Head, count: int, repeats: int) -> dict[str, Any]:
    """One size of batch, again and again: times and bytes a record, and the errors of its logits."""
    x = inputs(head.features, count) * min(1.0, head.contract.largest_norm)
    seconds: list[float] = []
    stats: list[CallStats] = []
    for _ in range(repeats):
        started = perf_counter()
        logits = client.predict(x)
        seconds.append(perf_counter() - started)
        stats.append(client.last_call.stats)
    plain = head.evaluate(x)
    errors = np.abs(logits - plain)
    return {
        "plan": stats[-1].plan,
        "figures": {
            "wall_ms_a_record": figure([1e3 * one / count for one in seconds]),
            "server_ms_a_record": figure([one.server_ms / count for one in stats]),
            "client_ms_a_record": figure([(one.encrypt_ms + one.decrypt_ms) / count for one in stats]),
        },
        "counts": {
            "bytes_up_a_record": stats[-1].bytes_up / count,
            "bytes_down_a_record": stats[-1].bytes_down / count,
            "max_logit_error": float(errors.max()),
            "p999_logit_error": float(np.quantile(errors, 0.999)),
            "error_bound": stats[-1].error_bound,
            "agreement": float((logits.argmax(axis=1) == plain.argmax(axis=1)).mean()),
        },
    }


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [
        f"{'':<46} {'records':>7} {'wall ms':>8} {'server ms':>9} {'client ms':>9} {'up':>8} {'down':>6} {'s':>3} "
        f"{'max err':>8} {'bound':>8} {'agree':>8} {'server MiB':>10}   (ms and bytes a record)"
    ]
    for row in suite["rows"]:
        ms, counts = {name: one["median"] for name, one in row["figures"].items()}, row["counts"]
        lines.append(
            f"{row['id']:<46} {counts['records']:>7} {ms['wall_ms_a_record']:>8.3f} {ms['server_ms_a_record']:>9.3f} "
            f"{ms['client_ms_a_record']:>9.3f} {counts['bytes_up_a_record']:>8,.0f} {counts['bytes_down_a_record']:>6,.0f} "
            f"{row['security']['smudging_bits']:>3} {counts['max_logit_error']:>8.1e} {counts['error_bound']:>8.1e} "
            f"{counts['agreement']:>8.2%} {counts['server_memory_bytes'] / 2**20:>10.0f}"
        )
    lines += [f"s = {bits}: {label}" for bits, label in LABELS.items()]
    return "\n".join(lines) + "\n"
