"""A soak's report, for people."""

from __future__ import annotations

from typing import Any

from secure_infer_benchmarks.stress.soak_watch import LEAST_SECONDS, WARM_UP

_VERDICTS = {True: "flat", False: "GROWS", None: "not told, lives were short"}


def text(report: dict[str, Any]) -> str:
    """As it is printed."""
    found = [
        f"{report['took']:.0f} s, seed {report['seed']}: {report['lost']} lost, {report['wrong']} wrong "
        f"({report['crossed']} crossed); memory {_VERDICTS[report['flat']]}",
        "  faults: " + ", ".join(f"{count} x {name}" for name, count in sorted(report["faults"].items())),
    ]
    for name in ("stuck", "did_not_come_back", "client_faults", "processes_that_said_nothing"):
        if report[name]:
            found.append(f"  {name.replace('_', ' ')}: {', '.join(report[name])}")
    found += [f"  {row}" for row in _aligned(_clients(report))]
    found += [f"  {row}" for row in _aligned(_memory(report))]
    return "\n".join(found) + "\n"


def markdown(report: dict[str, Any]) -> str:
    """As it is kept beside the JSON."""
    parts = ["# Soak", *text(report).splitlines()[:2]]
    for title, rows in (("Calls", _clients(report)), ("Processes", _memory(report))):
        head, *body = [f"| {' | '.join(row)} |" for row in rows]
        parts.append("\n".join([f"## {title}", "", head, "|" + " --- |" * len(rows[0]), *body]))
    parts.append(
        f"Flat: after {WARM_UP:.0f} s, in which bounded caches fill, resident memory grows by less than a tenth of its mean in "
        "an hour, or by no more than twice the standard error of the slope, samples that follow one another counted as the "
        f"correlated figures they are; lives that leave less than {LEAST_SECONDS:.0f} s for that do not tell."
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _clients(report: dict[str, Any]) -> list[list[str]]:
    rows = [["calls", "asked", "answered", "records", "median ms", "p99", "error / bound", "errors"]]
    for kind, found in report["clients"].items():
        times = found["call_ms"] or {"median": float("nan"), "p99": float("nan")}
        errors = ", ".join(f"{count} {reason}" for reason, count in sorted(found["errors"].items())) or "none"
        counts = [str(found[name]) for name in ("asked", "answered", "records")]
        rows.append(
            [
                kind,
                *counts,
                f"{times['median']:.0f}",
                f"{times['p99']:.0f}",
                f"{found['worst_error_of_bound']:.2f}",
                errors,
            ]
        )
    return rows


def _memory(report: dict[str, Any]) -> list[list[str]]:
    rows = [["process", "seconds", "MiB first", "late", "last", "growth/h", "±", "flat", "files", "threads"]]
    for found in report["memory"]:
        size = found["resident_mib"]
        rows.append(
            [
                found["process"],
                f"{found['seconds']:.0f}",
                *(f"{size[name]:.0f}" for name in ("first", "mean_late", "last")),
                f"{found['growth_an_hour']:+.0%}",
                f"{found['standard_error']:.0%}",
                {True: "yes", False: "NO", None: "-"}[found["flat"]],
                *(f"{found[name]['first']}-{found[name]['most']}" for name in ("files", "threads")),
            ]
        )
    return rows


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
