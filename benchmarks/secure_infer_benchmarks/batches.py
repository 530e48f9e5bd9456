"""Batches end to end: a server process of its own, the SDK as a client beside it, rows as the client divides them.

full: as many rows as the largest batch offered holds. partial: a row more than half of the smallest, which takes as long as
all of it. Smudging of about two bits reduces what the noise of answers tells of the weights; it does not hide it.
The server's times and memory are its own process's. Run with OPENBLAS_NUM_THREADS=1 for figures of one thread.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.errors import MissingExtra
from secure_infer.heads import Head
from secure_infer_benchmarks.engine import LOGITS, square_head
from secure_infer_benchmarks.linear import inputs, unit_norm_head
from secure_infer_client import Client, samples
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text.deidentify import deidentify
from secure_infer_client.text.embed import MiniLM

Floats = NDArray[np.float64]
SMUDGING = (2, 20)
LABELS = {2: "reduces leakage, does not remove it", 20: "hides the weights behind noise"}
TEXTS = 5694


@dataclass(frozen=True)
class Case:
    """A head and the rows whose decisions are compared with plaintext's: real ones where there are some."""

    name: str
    head: Head
    real: bool = False


def cases() -> list[Case]:
    """The published workloads."""
    return [
        Case("384 -> 10", unit_norm_head(384, 10)),
        Case("384 -> 64 -> 10 square", square_head(384, 64, 10)),
        Case("ICD-10 384 -> 256 -> 21", Head.load(models.path() / "icd10-chapter.head"), real=True),
    ]


def rows_of(case: Case, count: int) -> tuple[str, Floats]:
    """(what they are, rows): the held-out diagnosis texts' embeddings, or random rows of the largest norm allowed."""
    if case.real:
        try:
            texts = [deidentify(sample.text).text for sample in samples.load()[:count]]
            return f"{len(texts)} held-out diagnosis texts", case.head.contract.check(MiniLM()(texts))
        except MissingExtra:
            pass
    return f"{count} random rows", inputs(case.head.features, count) * min(1.0, case.head.contract.largest_norm)


def peak_memory(process: int) -> int | None:
    """Bytes that a process held at most; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def measure(case: Case, smudging: int, quick: bool) -> dict[str, Any]:
    """A case's row at that smudging."""
    described, texts = rows_of(case, TEXTS // 10 if quick else TEXTS)
    with tempfile.TemporaryDirectory() as directory:
        case.head.save(Path(directory) / "model.head")
        with (
            LocalServer(Path(directory), "--batch-smudging", str(smudging), "--blinds-per-key", "4") as server,
            Client(server.address, model="model", timeout=600) as client,
        ):
            before = peak_memory(server.ready["pid"])
            plans = client.batch_plans
            sizes = {"full": plans[-1].records, "partial": plans[0].records // 2 + 1}
            found: dict[str, Any] = {}
            errors: list[Floats] = []
            for kind, count in sizes.items():
                x = inputs(case.head.features, count) * min(1.0, case.head.contract.largest_norm)
                repeats = [_run(client, x) for _ in range(1 if quick else 3)]
                errors += [np.abs(logits - case.head.evaluate(x)).ravel() for logits, _ in repeats]
                figures = [each for _, each in repeats]
                found[kind] = figures[0] | {
                    name: median(each[name] for each in figures) for name in figures[0] if name.endswith("_a_record")
                }
            logits, _ = _run(client, texts)
            stats = client.last_call.stats
            after = peak_memory(server.ready["pid"])
    read, plain = np.concatenate(errors), case.head.evaluate(texts)
    same = logits.argmax(axis=1) == plain.argmax(axis=1)
    best = np.sort(plain, axis=1)
    sure = best[:, -1] - best[:, -2] > 2 * stats.error_bound
    return {
        **found,
        "smudging_bits": min(plan.smudging_bits for plan in plans),
        "label": LABELS[smudging],
        "error_bound": stats.error_bound,
        "max_logit_error": float(read.max()),
        "p999_logit_error": float(np.quantile(read, 0.999)),
        "logits": len(read),
        "rows": described,
        "argmax_agreement": float(same.mean()),
        "argmax_agreement_beyond_twice_the_bound": float(same[sure].mean()),
        "max_logit_error_on_rows": float(np.abs(logits - plain).max()),
        "peak_server_bytes": after,
        "server_bytes_before": before,
    }


def _run(client: Client, x: Floats) -> tuple[Floats, dict[str, Any]]:
    started = perf_counter()
    logits = client.predict(x)
    seconds, stats = perf_counter() - started, client.last_call.stats
    return logits, {
        "plan": stats.plan,
        "records": len(x),
        "server_ms_a_record": stats.server_ms / len(x),
        "client_ms_a_record": (stats.encrypt_ms + stats.decrypt_ms) / len(x),
        "wall_ms_a_record": 1e3 * seconds / len(x),
        "bytes_up_a_record": stats.bytes_up / len(x),
        "bytes_down_a_record": stats.bytes_down / len(x),
    }


def report(quick: bool) -> dict[str, Any]:
    """Every case at every smudging; errors are over at least 10,000 logits each."""
    grid = [(case, bits) for case in cases() for bits in SMUDGING]
    bar = tqdm(grid, desc="batches", leave=False, disable=None)
    found = {f"{case.name}, s = {bits}": measure(case, bits, quick) for case, bits in bar}
    assert all(row["logits"] >= LOGITS for row in found.values())
    return {"threads": os.environ.get("OPENBLAS_NUM_THREADS", "as the library chooses"), "cases": found}


def table(found: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{'':<34} {'batch':<8} {'records':>7} {'server ms':>9} {'client ms':>9} {'up':>8} {'down':>6} {'s':>3} "
        f"{'max err':>8} {'99.9%':>8} {'agree':>8} {'peak MB':>7}   (ms and bytes a record)"
    ]
    for name, row in found["cases"].items():
        for kind in ("full", "partial"):
            r = row[kind]
            lines.append(
                f"{name if kind == 'full' else '':<34} {kind:<8} {r['records']:>7} {r['server_ms_a_record']:>9.3f} "
                f"{r['client_ms_a_record']:>9.3f} {r['bytes_up_a_record']:>8,.0f} {r['bytes_down_a_record']:>6,.0f} "
                f"{row['smudging_bits']:>3} {row['max_logit_error']:>8.1e} {row['p999_logit_error']:>8.1e} "
                f"{row['argmax_agreement']:>8.2%} {(row['peak_server_bytes'] or 0) / 1e6:>7.0f}"
            )
        lines.append(
            f"    {row['label']}; agreement on {row['rows']}; bound {row['error_bound']:.1e}; {row['full']['plan']}"
        )
    return "\n".join(lines) + "\n"
