"""What `compare` found, as text: what regressed first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secure_infer_benchmarks.report import words
from secure_infer_benchmarks.report.tables import Table


def table(found: Mapping[str, Any]) -> str:
    """Lines of text."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if found["machines_differ"]:
        yield f"the machines differ ({'; '.join(found['machines_differ'])}): no times are compared, only ratios and counts"
    elif abs(found["plaintext_b_over_a"] - 1) > 0.02:
        yield (
            f"plaintext calls took {found['plaintext_b_over_a']:.2f} times as long in B: "
            "times without a ratio are divided by that"
        )
    if found["versions_differ"]:
        yield f"versions: {'; '.join(found['versions_differ'])}"
    for name in ("regressions", "improvements"):
        changes = found[name]
        yield f"{len(changes)} {name if len(changes) != 1 else name[:-1]}"
        if changes:
            yield _changes(changes)
    if found["counts"]:
        yield f"{len(found['counts'])} counts changed\n{_changes(found['counts'])}"
    if found["unsure"]:
        yield f"{len(found['unsure'])} moved by more than {words.percent(found['threshold'])}, within what noise does"
        yield _changes(found["unsure"])
    yield (
        f"{found['unchanged']} unchanged; {found['tested']} figures tested at level {found['level']:g} over all, "
        f"changes of more than {words.percent(found['threshold'])}"
    )
    if found["too_few_repeats"]:
        yield f"{found['too_few_repeats']} figures have too few repeats to be tested"
    for name, what in (("only_in_a", "only in A"), ("only_in_b", "only in B"), ("lost", "without figures in B")):
        if found[name]:
            yield f"{what}: {', '.join(found[name])}"


def _changes(changes: list[dict[str, Any]]) -> str:
    shown = Table("changes", ("", "change", "A", "B", "unit", "p"))
    for suite in dict.fromkeys(change["suite"] for change in changes):
        shown.heading(f"  {suite}")
        for change in (change for change in changes if change["suite"] == suite):
            p = "" if change["p"] is None else f"{change['p']:.1g}"
            values = (words.number(change[side]) for side in ("a", "b"))
            shown.row(f"  {change['row']}: {change['figure']}", f"{change['change']:+.1%}", *values, change["unit"], p)
    return shown.text()
