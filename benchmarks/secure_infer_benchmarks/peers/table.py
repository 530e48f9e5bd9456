"""The comparison as text: the ratios to ours first, then what each row is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.peers.ahead import MEASURES


def table(suite: Suite) -> str:
    """Lines of text, for a suite of `suite.measure`."""
    held = {one["id"]: one for one in suite["ahead"]}
    lines = ["How many times ours a peer takes; below 1 it is ahead. One thread each.", ""]
    for workload in dict.fromkeys(row["workload"] for row in suite["rows"]):
        rows = [row for row in suite["rows"] if row["workload"] == workload]
        lines.append(f"{workload} ({rows[0]['shape']})")
        for row in rows:
            lines += _lines(row, held.get(row["id"]))
        lines += [f"  {one['told']}" for one in held.values() if one["workload"] == workload and one["told"]]
        lines.append("")
    return "\n".join(lines)


def _lines(row: Row, ahead: dict[str, Any] | None) -> Iterator[str]:
    who = f"  {row['who']:<13}"
    if "reason" in row:
        yield f"{who} no figures: {row['reason']}"
        return
    figures, counts, security = row["figures"], row["counts"], row["security"]
    ratios = (
        "ours"
        if row["ours"]
        else ", ".join(f"{_times(ratio)} the {MEASURES[name]}" for name, ratio in ahead["ratios"].items())
        if ahead
        else "beside none of ours"
    )
    yield f"{who} {ratios}"
    times = ", ".join(
        f"{name.removesuffix('_ms')} {one['median']:,.1f} ms ({one['low']:,.1f} to {one['high']:,.1f})"
        for name, one in figures.items()
    )
    yield f"{'':<15} {times}; {figures['server_ms']['repeats']} queries"
    yield (
        f"{'':<15} {counts['bytes_up']:,} bytes up, {counts['bytes_down']:,} down, {counts['key_bytes']:,} of keys once; "
        f"logit error {counts['max_logit_error']:.1e}, {counts['agreement']:.0%} same class"
    )
    bits = "" if security["bits"] is None else f", {security['bits']} bits"
    model = "model private" if security["model_private"] else "model not private"
    yield f"{'':<15} {row['variant']}; {row['version']}, {row['parameters']}{bits}"
    yield f"{'':<15} {model}; rests on {security['rests_on']}{'; ' + row['note'] if row['note'] else ''}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.1f} x" if ratio >= 0.1 else f"{ratio:.1g} x"
