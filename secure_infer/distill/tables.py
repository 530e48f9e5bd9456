"""Tables of training facts in Markdown, for cards and for the report."""

from __future__ import annotations

from typing import Any


def ways(evidence: dict[str, Any]) -> str:
    """One line a way of training: accuracy and macro-F1 on test, mean and standard deviation over seeds."""
    lines = ["| learned from | seeds | test accuracy | macro-F1 | mean R |", "| --- | --- | --- | --- | --- |"]
    for way in evidence["ways"]:
        accuracy = spread(way["accuracy_mean"], way["accuracy_sd"], len(way["seeds"]))
        macro = spread(way["macro_f1_mean"], way["macro_f1_sd"], len(way["seeds"]))
        lines.append(f"| {way['way']} | {len(way['seeds'])} | {accuracy} | {macro} | {way['range_mean']:.1f} |")
    return "\n".join(lines)


def differences(evidence: dict[str, Any]) -> str:
    """One item a comparison: both paired bootstrap intervals, and the ratio of the ranges R."""
    ranges = {way["way"]: way["range_mean"] for way in evidence["ways"]}
    return "\n".join(
        f"- {entry['of']}, less {entry['over']}: {100 * entry['difference']:+.2f} points of accuracy, paired bootstrap 95% "
        f"interval\n  {_interval(entry['by_text'])} over texts, {_interval(entry['by_category'])} over whole categories: "
        f"{_verdict(entry)}.\n  R is {ranges[entry['of']] / ranges[entry['over']]:.2f} times as large."
        for entry in evidence["differences"]
    )


def penalties(facts: dict[str, Any]) -> str:
    """One line an L2 penalty of the linear head: accuracies, range, norm, and what encryption pays."""
    lines = [
        "| L2 penalty | validation | test | R | norm of W | plan | smudging bits | bytes up / down |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in facts["penalties"]:
        mark = "**" if entry["penalty"] == facts["settings"]["linear_penalty"] else ""
        cost = "none | | " if entry["plan"] is None else _cost(entry)
        lines.append(
            f"| {mark}{entry['penalty']:g}{mark} | {entry['validation']:.1%} | {entry['test']:.1%} | {entry['range']:.1f} "
            f"| {entry['frobenius_norm']:.1f} | {cost} |"
        )
    return "\n".join(lines)


def spread(mean: float, deviation: float, count: int) -> str:
    """`mean ± sd` in percent, or the mean alone of a single value."""
    return f"{mean:.1%} ± {100 * deviation:.1f}" if count > 1 else f"{mean:.1%}"


def _cost(entry: dict[str, Any]) -> str:
    return f"{entry['plan']} | {entry['smudging_bits']} | {entry['bytes_up']:,} / {entry['bytes_down']:,}"


def _verdict(entry: dict[str, Any]) -> str:
    """In words, what the intervals say; zero inside an interval means that no difference is shown."""
    shown = [low > 0 or high < 0 for low, high in (entry["by_text"], entry["by_category"])]
    if all(shown):
        return "a difference"
    return "no difference shown" if not any(shown) else "a difference on these texts, not shown for other categories"


def _interval(edges: list[float]) -> str:
    return f"[{100 * edges[0]:+.2f}, {100 * edges[1]:+.2f}]"
