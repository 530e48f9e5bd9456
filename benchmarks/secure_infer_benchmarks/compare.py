"""`secure-infer bench compare`: what became slower, faster, larger or smaller between two reports of the same suites.

A figure has changed when a rank test says so (Mann-Whitney, corrected by Holm over all figures) and its median moved by
more than the threshold: noise alone seldom does both. Where a row has a ratio to plaintext taken in the same rounds, times
are compared in plaintext calls, so that a slower hour of the machine cancels. Sizes and rounds regress when they grow, shares
of right or equal answers when they fall by half a point. Exit status: 1 when something regressed, 0 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_benchmarks import figures
from secure_infer_benchmarks.compared import table
from secure_infer_benchmarks.figures import Figure, Row
from secure_infer_benchmarks.ranks import holm, mann_whitney
from secure_infer_benchmarks.report import reading

LEVEL = 0.05
"""Chance of any false alarm among all figures, when nothing has changed."""
FEWEST = 4
"""Samples of each: with fewer the test cannot say anything at that level."""
POINTS = 0.005
"""Shares may fall by half a percentage point: labels at the border fall to one side or the other by chance."""
SAME = ("x", "bytes", "%")
"""Units that do not depend on the machine's speed."""
SHARES = ("accuracy", "macro_f1", "agreement")


@dataclass(frozen=True)
class Change:
    """One figure or count: medians (in `unit`), by how much B is off A, adjusted p of a figure, and what to call it."""

    suite: str
    row: str
    figure: str
    unit: str
    a: float
    b: float
    change: float
    p: float | None
    verdict: str


def run(arguments: list[str]) -> int:
    """Compare two reports; 1 when something regressed."""
    parser = argparse.ArgumentParser(
        "secure-infer bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="the report that B is held against")
    parser.add_argument("b", type=Path, metavar="B.json")
    parser.add_argument(
        "--threshold", type=float, default=5.0, metavar="PERCENT", help="smallest change that counts (5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 <= options.threshold < 1000:
        raise SettingsError(f"--threshold: expected percent from 0, got {options.threshold:g}")
    a, b = (reading.checked(figures.load(path), str(path)) for path in (options.a, options.b))
    found = compare(a, b, options.threshold / 100)
    sys.stdout.write(json.dumps(found) + "\n" if options.json else table(found))
    return int(bool(found["regressions"]))


def compare(a: Mapping[str, Any], b: Mapping[str, Any], threshold: float = 0.05) -> dict[str, Any]:
    """What changed from A to B; raises SettingsError for reports without a suite in common."""
    suites = [name for name in a["suites"] if name in b["suites"] and reading.rows(a, name) and reading.rows(b, name)]
    if not suites:
        raise SettingsError(f"no suite in common: {', '.join(a['suites'])} and {', '.join(b['suites'])}")
    differ = machines(a, b)
    speed = 1.0 if differ else drift(a, b)
    changes: list[Change] = []
    pairs = list(_pairs(a, b, suites))
    able = [test for pair in pairs for test in _tests(*pair, speed, bool(differ))]
    tested = [test for test in able if test[-1] is not None]
    adjusted = holm([test[-1] for test in tested])
    for (suite, row, name, unit, better, of_a, of_b, _), p in zip(tested, adjusted, strict=True):
        change = _change(of_a, of_b)
        worse = change > 0 if better == "lower" else change < 0
        far = abs(change) > threshold
        verdict = "unsure" if far else "unchanged"
        if far and p < LEVEL:
            verdict = "regression" if worse else "improvement"
        changes.append(Change(suite, row, name, unit, of_a, of_b, change, p, verdict))
    changes += [change for pair in pairs for change in _counts(*pair, threshold)]

    def listed(verdict: str) -> list[dict[str, Any]]:
        held = [change for change in changes if change.verdict == verdict]
        return [asdict(change) for change in sorted(held, key=lambda change: -abs(change.change))]

    ids = [{(suite, row["id"]) for suite in suites for row in reading.rows(report, suite)} for report in (a, b)]
    return {
        "suites": suites,
        "machines_differ": differ,
        "versions_differ": _versions(a, b),
        "plaintext_b_over_a": None if differ else speed,
        "threshold": threshold,
        "level": LEVEL,
        "tested": len(tested),
        "too_few_repeats": len(able) - len(tested),
        "regressions": listed("regression"),
        "improvements": listed("improvement"),
        "unsure": listed("unsure"),
        "counts": listed("count"),
        "unchanged": sum(change.verdict == "unchanged" for change in changes),
        "only_in_a": sorted("/".join(key) for key in ids[0] - ids[1]),
        "only_in_b": sorted("/".join(key) for key in ids[1] - ids[0]),
        "lost": [f"{suite}/{old['id']}" for suite, old, new in pairs if old.get("figures") and not new.get("figures")],
    }


def machines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What of the machines differs such that milliseconds cannot be compared."""
    held = (a.get("machine", {}), b.get("machine", {}))
    names = ("processor", "cores", "system", "threads")
    return [
        f"{name}: {held[0].get(name)} and {held[1].get(name)}"
        for name in names
        if held[0].get(name) != held[1].get(name)
    ]


def drift(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """How much slower the plaintext calls of B are: what times without a ratio are divided by. 1 where one has none."""
    taken = [
        {
            row["id"]: value
            for row in reading.rows(report, "cost")
            if row.get("scheme") == "plaintext" and (value := reading.value(row, "call_ms"))
        }
        for report in (a, b)
    ]
    both = [taken[1][row] / taken[0][row] for row in taken[0] if row in taken[1]]
    return median(both) if both else 1.0


def _versions(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    old, new = (report.get("machine", {}).get("versions", {}) for report in (a, b))
    return [f"{name}: {old.get(name)} and {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any], suites: list[str]) -> Iterator[tuple[str, Row, Row]]:
    for suite in suites:
        new = {row["id"]: row for row in reading.rows(b, suite)}
        yield from ((suite, row, new[row["id"]]) for row in reading.rows(a, suite) if row["id"] in new)


def _tests(suite: str, old: Row, new: Row, speed: float, differ: bool) -> Iterator[tuple[Any, ...]]:
    """(suite, row, figure, unit, better, median of A, of B, p) of every figure that both rows have and that can be
    compared; p is None for too few repeats."""
    held = old.get("figures", {}), new.get("figures", {})
    paired = all("ratio" in figures_of and "call_ms" in figures_of for figures_of in held)
    if old.get("scheme") == "plaintext" or old.get("published") or new.get("dated"):
        return  # the unit itself; what nobody measured
    for name, figure in held[0].items():
        other = held[1].get(name)
        if other is None or other["unit"] != figure["unit"] or (paired and name == "call_ms"):
            continue  # a call in plaintext calls is the ratio
        samples, unit = [_samples(figure), _samples(other)], str(figure["unit"])
        if paired and unit == "ms":
            samples = [_in_calls(of, rows_of) for of, rows_of in zip((figure, other), held, strict=True)]
            unit = "plaintext calls"
        elif unit not in SAME:
            if differ:
                continue
            factor = speed if figure["better"] == "lower" else 1 / speed
            samples[1] = [value / factor for value in samples[1]]
        p = mann_whitney(*samples) if min(map(len, samples)) >= FEWEST else None
        yield suite, old["id"], name, unit, figure["better"], median(samples[0]), median(samples[1]), p


def _samples(figure: Figure) -> list[float]:
    return [float(value) for value in figure.get("samples") or [figure["median"]]]


def _in_calls(figure: Figure, row: Mapping[str, Figure]) -> list[float]:
    """Milliseconds as plaintext calls: of the same round where the rounds are all there, else of the middle one."""
    stage, calls, ratios = (_samples(held) for held in (figure, row["call_ms"], row["ratio"]))
    if len(stage) == len(calls) == len(ratios):
        return [x * ratio / call for x, call, ratio in zip(stage, calls, ratios, strict=True)]
    return [x * row["ratio"]["median"] / row["call_ms"]["median"] for x in stage]


def _change(a: float, b: float) -> float:
    if a == b:
        return 0.0
    return b / a - 1 if a else float(1 if b > 0 else -1)


def _counts(suite: str, old: Row, new: Row, threshold: float) -> Iterator[Change]:
    """Sizes and rounds regress when they grow, shares when they fall, errors when they pass their bound; others are told."""
    held = old.get("counts", {}), new.get("counts", {})
    for name in held[0]:
        a, b = held[0][name], held[1].get(name)
        if not all(isinstance(x, int | float) for x in (a, b)):
            continue
        verdict = _verdict(name, a, b, held[1].get("error_bound"), threshold)
        if verdict:
            yield Change(suite, old["id"], name, "", float(a), float(b), _change(a, b), None, verdict)


def _verdict(name: str, a: float, b: float, bound: float | None, threshold: float) -> str:
    """Empty for what is not worth a line."""
    if name in ("max_logit_error", "predicted_ms"):
        return "regression" if name == "max_logit_error" and bound is not None and a <= bound < b else ""
    if a == b:
        return "unchanged"
    if name.endswith("memory_bytes"):  # of a process: noise as well
        return "" if abs(_change(a, b)) <= threshold else "regression" if b > a else "improvement"
    if "bytes" in name or name == "rounds":
        return "regression" if b > a else "improvement"
    if name in SHARES:
        return "count" if abs(b - a) <= POINTS else "regression" if b < a else "improvement"
    return "count"
