"""An overload's report, for people."""

from __future__ import annotations

from typing import Any


def text(report: dict[str, Any]) -> str:
    """As it is printed."""
    lines = []
    for name, r in report.items():
        lines.append(f"{name} ({r['plan']}, {r['bytes_up']:,} bytes a query)")
        rows = {
            "capacity": f"{r['capacity']:.0f} answers a second",
            "offered": f"{r['offered']:.0f} a second, {r['offered_times_capacity']:.1f} times as many",
            "answered meanwhile": f"{r['answered']:.0f} a second, {r['answered'] / r['capacity']:.0%} of capacity",
            "turned away": ", ".join(f"{count} {status}" for status, count in sorted(r["statuses"].items())),
            "refused after": _times(r["refused_ms"]),
            "turned away after": _times(r["turned_away_ms"]),
            "answered after": _times(r["answered_ms"]),
            "held back by windows": _times(r["held_back_ms"]),
            "wrong answers": str(r["wrong"]),
            "health": f"{r['health']['said']} of {r['health']['checks']} checks, {_times(r['health']['ms'])}, at most "
            f"{r['health']['longest_without']} in a row without an answer",
            "single calls beside it": f"{r['health']['calls_beside']}, {r['health']['calls_with_hint']} told when to retry",
            "recovered": f"in {1e3 * (r['recovery_seconds'] or float('nan')):.0f} ms, to {r['capacity_after']:.0f} a second",
        }
        lines += [f"  {title:<24}{text}" for title, text in rows.items()]
    return "\n".join(lines) + "\n"


def _times(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "none"
    return f"{spread['median']:.1f} ms, p99 {spread['p99']:.0f}, at most {spread['most']:.0f}"
