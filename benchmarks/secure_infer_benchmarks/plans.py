"""The server's whole handling of a query by plan, one thread, no network: for the published heads, and by smudging.

Every row goes through the server's own code, from request bytes to answer bytes, with blinds prepared ahead as the server
prepares them; the client's work is measured beside it.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from secure_infer import models
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head
from secure_infer_benchmarks.cost.ways import security
from secure_infer_benchmarks.engine import Case, choose, run
from secure_infer_benchmarks.figures import Row, Suite, figure
from secure_infer_benchmarks.synthetic import inputs, square_head, unit_norm_head

LOGITS = 3000
"""Over which the error of a published row is read."""
QUERIES = 30
"""Of every other row, and of a published one at least."""


def cases() -> list[Case]:
    """The published workloads, each within its bytes and smudging."""
    linear, square = unit_norm_head(384, 10), square_head(384, 64, 10)
    flagship = Head.load(models.path() / "icd10-chapter.head")
    return [
        Case("384 -> 10", linear, 18),
        Case("384 -> 10, error 1e-4", linear, 18, 1e-4),
        Case("384 -> 64 -> 10 square, few bytes", square, 20, 1e-3, 150_000),
        Case("384 -> 64 -> 10 square", square, 20, 1e-3, 570_000),
        Case("ICD-10 384 -> 256 -> 21, few bytes", flagship, 16, 1.5e-3, 150_000),
        Case("ICD-10 384 -> 256 -> 21", flagship, 18, 1.5e-3, 570_000),
    ]


def smudging_cases() -> list[Case]:
    """The published heads at several levels of smudging."""
    heads = {
        "384 -> 10": unit_norm_head(384, 10),
        "384 -> 64 -> 10 square": square_head(384, 64, 10),
        "ICD-10 384 -> 256 -> 21": Head.load(models.path() / "icd10-chapter.head"),
    }
    return [
        Case(f"{name}, s = {bits}", head, bits, 1.5e-3 if name.startswith("ICD") else 1e-3, 1_600_000)
        for name, head in heads.items()
        for bits in (7, 20, 30, 40)
    ]


def measure(quick: bool) -> Suite:
    """The published heads, then what smudging costs."""
    wanted = [("published", case, LOGITS // (20 if quick else 1)) for case in cases()]
    wanted += [("smudging", case, 0) for case in ([] if quick else smudging_cases())]
    rows = []
    with tqdm(wanted, desc="plans", leave=False, disable=None) as bar:
        for group, case, logits in bar:
            bar.set_postfix_str(case.name)
            try:
                rows.append({"id": case.name, "group": group} | measured(case, logits))
            except UnsupportedHead as problem:
                rows.append({"id": case.name, "group": group, "reason": problem.message})
    return {"rows": rows}


def measured(case: Case, logits: int) -> Row:
    """A case's plan, milliseconds by stage, bytes, and the error over at least so many logits."""
    candidate = choose(case)
    plan = candidate.plan
    queries = max(QUERIES, -(-logits // plan.outputs))
    x = inputs(case.head.features, queries) * min(1.0, case.head.contract.largest_norm)
    found, stages = run(case.head, candidate, x, case.name)
    read = np.abs(found - case.head.evaluate(x)).ravel()
    return {
        "scheme": "ckks",
        "plan": f"{candidate.kind} {plan.parameters}",
        "security": security(plan),
        "figures": {f"{stage}_ms": figure([times[stage] for times in stages]) for stage in stages[0]},
        "counts": {
            "predicted_server_ms": 1e3 * candidate.cost.server,
            "ciphertexts": plan.ciphertexts,
            "bytes_up": plan.query_bytes,
            "bytes_down": plan.answer_bytes,
            "key_bytes": plan.key_bytes,
            "error_bound": plan.error_bound,
            "max_logit_error": float(read.max()),
            "p999_logit_error": float(np.quantile(read, 0.999)),
            "logits": len(read),
        },
    }


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [
        f"{'':<38} {'plan':<36} {'server ms':>9} {'predicted':>9} {'client ms':>9} {'up':>9} {'down':>7} {'keys':>9} {'s':>3} "
        f"{'bound':>7} {'max err':>7}"
    ]
    for row in suite["rows"]:
        if "reason" in row:
            lines.append(f"{row['id']:<38} does not fit: {row['reason'][:120]}")
            continue
        ms, counts = {name: one["median"] for name, one in row["figures"].items()}, row["counts"]
        lines.append(
            f"{row['id']:<38} {row['plan']:<36} {ms['server_ms']:>9.2f} {counts['predicted_server_ms']:>9.2f} "
            f"{ms['encrypt_ms'] + ms['read_ms']:>9.2f} {counts['bytes_up']:>9,} {counts['bytes_down']:>7,} "
            f"{counts['key_bytes']:>9,} {row['security']['smudging_bits']:>3} {counts['error_bound']:>7.1e} "
            f"{counts['max_logit_error']:>7.1e}"
        )
    return "\n".join(lines) + "\n"
