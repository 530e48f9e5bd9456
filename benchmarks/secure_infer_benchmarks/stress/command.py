"""`secure-infer stress`: real servers of this machine's own under hostile bytes, under load with faults, and beyond it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

SUITES = {
    "hostile": "hostile inputs on every method, port and parser, beside queries whose answers are checked",
    "soak": "mixed load with killed workers and restarted servers, every answer checked",
    "overload": "more load than a server can take: refusals, health and recovery",
    "kills": "SIGKILL at random moments, while keys are uploaded and while models change",
}


def run(arguments: list[str]) -> int:
    """Run one suite; each has its own options."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    if arguments[0] not in SUITES:
        sys.stderr.write(f"secure-infer stress: unknown suite {arguments[0]!r}; one of {', '.join(SUITES)}\n")
        return 2
    suite: Callable[[list[str]], int] = import_module(f"secure_infer_benchmarks.stress.{arguments[0]}").run
    return suite(arguments[1:])


def _usage() -> str:
    width = max(map(len, SUITES))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in SUITES.items()]
    ending = "Every suite takes --json; --help of a suite says more."
    return "\n".join(["usage: secure-infer stress SUITE ...", "", *lines, "", ending, ""])
