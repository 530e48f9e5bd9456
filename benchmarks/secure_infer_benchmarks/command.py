"""`secure-infer bench`: what encrypted inference costs on this machine, against the same server's plaintext call.

`bench compare A.json B.json` tells what changed between two reports, `bench report FILE.json` draws one.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_benchmarks import figures

MEASURE = Callable[[bool], figures.Suite]
TABLE = Callable[[figures.Suite], str]


@dataclass(frozen=True)
class Measured:
    """A suite: the module that has `function`(quick) and `table`(suite), and what it measures."""

    module: str
    summary: str
    table_module: str = ""
    function: str = "measure"

    def load(self) -> tuple[MEASURE, TABLE]:
        """Imported when asked for: some need packages that others do without."""
        at = "secure_infer_benchmarks."
        measure = getattr(import_module(at + self.module), self.function)
        return measure, import_module(at + (self.table_module or self.module)).table


SUITES = {
    "cost": Measured("cost.suite", "queries in both schemes and every way to ask, beside plaintext", "cost.table"),
    "plans": Measured("plans", "the server by itself, by plan and by smudging"),
    "batches": Measured("batches", "many records at once"),
    "accuracy": Measured("accuracy", "answers beside plaintext on complete test sets: accuracy, errors, calibration"),
    "network": Measured("network.suite", "both schemes through emulated links, beside what was predicted"),
    "scaling": Measured("scaling.suite", "heads, batches and clients of all sizes, beside what was predicted"),
    "throughput": Measured("throughput", "answers a second, by workers"),
    "start": Measured("start", "new processes, with and without a key ring"),
    "mnist": Measured("mnist", "the public MNIST MLP workload, beside its published reference"),
    "peers": Measured("peers.suite", "the same heads in other software", "peers.table"),
    "mpc": Measured("sharing", "two parties, stage by stage, beside stock CrypTen", "sharing_table", "report"),
    "gate": Measured("gate", "callers, budgets and audit beside an open server"),
    "extraction": Measured("extraction", "stolen models' agreement, by queries and policy", function="suite"),
    "deidentify": Measured("deidentification", "what is removed from synthetic texts", function="suite"),
}
GROUPS = {
    "quick": ("cost",),
    "full": (
        *("cost", "plans", "batches", "accuracy", "network", "scaling", "throughput", "start", "mnist", "peers"),
        "gate",
    ),
}
"""Several suites as one report. quick: under two minutes, with few repeats."""
SAME = ("processor", "cores", "python", "versions", "threads")
"""What the machine of a report that goes on has to be."""


def run(arguments: list[str]) -> int:
    """Measure, compare or draw; prints a table, or one JSON object."""
    match arguments:
        case ["compare", *rest]:
            from secure_infer_benchmarks import compare

            return compare.run(rest)
        case ["report", *rest]:
            from secure_infer_benchmarks.report import command

            return command.run(rest)
    options = _parser().parse_args(arguments)
    if options.resume and options.out is None:
        raise SettingsError("--resume goes on with the report of --out FILE.json; got no --out")
    names = GROUPS.get(options.suite, (options.suite,))
    line = shlex.join(["secure-infer", "bench", *_repeatable(options)])
    machine = figures.machine()
    found = _begun(options.out, line, machine) if options.resume else {}
    for number, name in enumerate(names, 1):
        if len(names) > 1:
            sys.stderr.write(f"{name} ({number} of {len(names)}): {SUITES[name].summary}\n")
        if name not in found:
            found[name] = _measured(name, options.quick or options.suite == "quick", alone=len(names) == 1)
            if options.out is not None:  # after every suite: what was measured is not lost with what comes
                figures.save(figures.report(line, found, machine), options.out)
    report = figures.report(line, found, machine)
    sys.stdout.write(
        json.dumps(report) + "\n" if options.json else "\n".join(_told(name, found[name]) for name in names)
    )
    return int(any("failed" in suite for suite in found.values()))


def _measured(name: str, quick: bool, *, alone: bool) -> figures.Suite:
    """A suite with the seconds that it took. Among others, one that fails does not take theirs with it."""
    measure, _ = SUITES[name].load()
    started = perf_counter()
    try:
        found = measure(quick)
    except Exception as problem:
        if alone:
            raise
        sys.stderr.write(f"{name} failed: {problem!r}\n")
        found = {"rows": [], "failed": repr(problem)}
    found["seconds"] = round(perf_counter() - started, 1)
    return found


def _begun(path: Path, command: str, machine: dict[str, Any]) -> dict[str, figures.Suite]:
    """The suites of a report that the same command began on this machine; raises SettingsError for another's."""
    if not path.exists():
        return {}
    report = figures.load(path)
    same = {"command": command, **{name: machine[name] for name in SAME}}
    was = {"command": report["command"], **{name: report["machine"].get(name) for name in SAME}}
    for name, expected in same.items():
        if was[name] != expected:
            raise SettingsError(
                f"--resume: {path} was begun with {name} {was[name]!r}, this is {expected!r}; leave --resume out"
            )
    return {name: suite for name, suite in report["suites"].items() if "failed" not in suite}


def _told(name: str, suite: figures.Suite) -> str:
    if "failed" in suite:
        return f"{name} failed: {suite['failed']}\n"
    _, table = SUITES[name].load()
    return f"{SUITES[name].summary}\n{table(suite)}"


def _parser() -> argparse.ArgumentParser:
    several = "".join(f"{name}: {', '.join(suites)}. " for name, suites in GROUPS.items())
    each = "; ".join(f"{name}: {suite.summary}" for name, suite in SUITES.items())
    parser = argparse.ArgumentParser("secure-infer bench", description=__doc__)
    parser.add_argument(
        "--suite",
        choices=[*GROUPS, *SUITES],
        default="quick",
        metavar="NAME",
        help=f"quick unless said otherwise. {several}{each}",
    )
    parser.add_argument("--quick", action="store_true", help="few repeats, small samples")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the report there")
    parser.add_argument("--resume", action="store_true", help="go on with the report of --out where a run ended early")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _repeatable(options: argparse.Namespace) -> list[str]:
    """The options that a figure depends on."""
    return ["--suite", options.suite, *(["--quick"] if options.quick else [])]
