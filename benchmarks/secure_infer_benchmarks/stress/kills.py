"""`secure-infer stress kills`: SIGKILL at random moments, while keys are uploaded and while models change."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from secure_infer_benchmarks import figures
from secure_infer_benchmarks.stress import key_kills, reload_kills


def run(arguments: list[str]) -> int:
    """Kill, look, and print what was found; the exit status is 0 only where all was consistent every time."""
    parser = argparse.ArgumentParser("secure-infer stress kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="of key stores, and of servers (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the models written, and of when servers are killed (1)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the report there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"seed": options.seed, "machine": figures.machine()}
    found["uploads"] = _endured(lambda: _stores(options.kills), key_kills.Inconsistent)
    found["reloads"] = _endured(lambda: reload_kills.endure(options.kills, options.seed), reload_kills.Inconsistent)
    found["sound"] = not any("inconsistent" in found[kind] for kind in ("uploads", "reloads"))
    if options.out is not None:
        figures.save(found, options.out)
    sys.stdout.write(json.dumps(found) + "\n" if options.json else table(found))
    return 0 if found["sound"] else 1


def _stores(kills: int) -> key_kills.Endured:
    with tempfile.TemporaryDirectory() as directory:
        return key_kills.endure(kills, Path(directory) / "keys")


def _endured(killing: Callable[[], Any], inconsistent: type[Exception]) -> dict[str, Any]:
    """What came of it, or what was found inconsistent."""
    started = perf_counter()
    try:
        found = dict(vars(killing()))
    except inconsistent as problem:
        found = {"inconsistent": str(problem)}
    return found | {"seconds": round(perf_counter() - started, 1)}


def table(found: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for kind in ("uploads", "reloads"):
        if "inconsistent" in found[kind]:
            lines.append(f"{kind}: INCONSISTENT: {found[kind]['inconsistent']}")
            continue
        facts = {name: sum(value.values()) if isinstance(value, dict) else value for name, value in found[kind].items()}
        lines.append(f"{kind}: " + ", ".join(f"{name} {value:,}" for name, value in facts.items()))
    return "\n".join([*lines, "consistent every time" if found["sound"] else "NOT CONSISTENT", ""])
