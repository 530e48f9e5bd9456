"""`secure-infer plan`: what encrypted evaluation of a head would cost and hide, and what else was considered."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from secure_infer.ckks import planner
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head


def run(arguments: list[str]) -> int:
    """Plan the head; prints a table, or one JSON object with every candidate."""
    parser = argparse.ArgumentParser("secure-infer plan", description=__doc__)
    parser.add_argument("head", type=Path, metavar="FILE.head")
    parser.add_argument("--privacy", choices=list(Privacy), default=Privacy.BOTH_PRIVATE)
    parser.add_argument(
        "--error",
        type=float,
        default=planner.DEFAULT_ERROR,
        help=f"wanted bound on the logit error ({planner.DEFAULT_ERROR:g})",
    )
    parser.add_argument(
        "--smudging",
        type=int,
        default=planner.DEFAULT_SMUDGING,
        help=f"least smudging bits ({planner.DEFAULT_SMUDGING})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    head = Head.load(options.head)
    linear = head.as_linear()
    if linear is None:
        raise UnsupportedHead(
            f"{options.head.name}: encrypted evaluation takes affine heads; distil it into a linear one"
        )
    found = planner.explore(
        linear, head.contract, privacy=Privacy(options.privacy), error=options.error, smudging=options.smudging
    )
    if options.json:
        rows = [_row(candidate) for candidate in found]
        sys.stdout.write(json.dumps({"chosen": rows[0] if found[0].plan else None, "candidates": rows}) + "\n")
        return 0
    sys.stdout.write(
        f"{head!r}, |logit| <= {planner.largest_logit(linear, head.contract):.3g}, {options.privacy}\n"
        f"{'parameters':<26} {'cost, ms':>8} {'products':>8} {'bytes up':>9} {'bytes down':>10} "
        f"{'key bytes':>9} {'smudging':>8} {'error':>8}\n"
    )
    for candidate in found:
        p = candidate.plan
        if p is None:
            sys.stdout.write(f"{candidate.parameters:<26} rejected: {candidate.reason}\n")
        else:
            sys.stdout.write(
                f"{candidate.parameters:<26} {candidate.cost:>8.1f} {p.products:>8} {p.query_bytes:>9,} {p.answer_bytes:>10,} "
                f"{p.key_bytes:>9,} {p.smudging_bits:>8} {p.error_bound:>8.1e}\n"
            )
    if found[0].plan is None:
        raise UnsupportedHead(
            f"{options.head.name}: nothing fits; allow a larger --error or fewer --smudging bits, or train with stronger "
            "weight decay so that the range shrinks"
        )
    sys.stdout.write(f"chosen: {found[0].parameters}, the cheapest (cost is an estimate that only ranks)\n")
    return 0


def _row(candidate: planner.Candidate) -> dict[str, Any]:
    """A candidate as JSON can hold it."""
    plan = candidate.plan
    if plan is None:
        return {"parameters": candidate.parameters, "reason": candidate.reason}
    return {
        **plan.as_dict(),
        "cost": candidate.cost,
        "reason": "",
        "products": plan.products,
        "bytes_up": plan.query_bytes,
        "bytes_down": plan.answer_bytes,
        "key_bytes": plan.key_bytes,
        "security_bits": plan.security_bits,
    }
