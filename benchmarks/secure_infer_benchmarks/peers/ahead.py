"""How far this project is ahead of each peer in each stated measure, and in plain words where it is not."""

from __future__ import annotations

from typing import Any

from secure_infer_benchmarks.figures import Row

MEASURES = {
    "server_ms": "time of the server",
    "call_ms": "time of a query",
    "bytes": "bytes up and down",
    "key_bytes": "bytes of keys",
}


def compared(rows: list[Row]) -> list[dict[str, Any]]:
    """Of each peer's measured row: the ratios of its measures to ours, above 1 where ours is ahead.

    Each is held against the first of our rows of its workload; with secret sharing, the one that holds the weights alike.
    A measure is left out where ours is nothing. `told` says where ours is not ahead, and which other row of ours is.
    """
    found = []
    for row in rows:
        own = [one for one in rows if one["workload"] == row["workload"] and one["ours"] and "figures" in one]
        own = [one for one in own if one.get("weights") == row.get("weights")]
        if row["ours"] or "figures" not in row or not own:
            continue
        ratios = _ratios(row, own[0])
        behind = [name for name, ratio in ratios.items() if ratio < 1]
        told = [_sentence(name, row, own) for name in behind]
        found.append(
            {
                "id": row["id"],
                "workload": row["workload"],
                "to": own[0]["id"],
                "ratios": ratios,
                "behind": behind,
                "told": " ".join(told),
            }
        )
    return found


def quantity(row: Row, name: str) -> float | None:
    """A measure of MEASURES of a row; None where it has none. Secret sharing is measured by the query, not the server."""
    figures, counts = row["figures"], row["counts"]
    if name == "bytes":
        return float(counts["bytes_up"] + counts["bytes_down"])
    if name == "key_bytes":
        return float(counts[name])
    if name == "server_ms" and "call_ms" in figures:
        return None
    return float(figures[name]["median"]) if name in figures else None


def _ratios(row: Row, own: Row) -> dict[str, float]:
    pairs = {name: (quantity(row, name), quantity(own, name)) for name in MEASURES}
    return {name: theirs / ours for name, (theirs, ours) in pairs.items() if theirs is not None and ours}


def _sentence(name: str, row: Row, own: list[Row]) -> str:
    theirs, ours = quantity(row, name), quantity(own[0], name)
    assert theirs is not None
    assert ours is not None
    who = f"{row['who']} ({row['variant']})"
    said = f"Ours is not ahead of {who} in {MEASURES[name]}: {number(ours, name)} beside {number(theirs, name)}."
    better = [one for one in own[1:] if (value := quantity(one, name)) is not None and value < theirs]
    if better:
        said += f" Ours with {better[0]['variant']} is: {number(quantity(better[0], name) or 0.0, name)}."
    return said


def number(value: float, name: str) -> str:
    """A quantity with its unit."""
    return f"{value:,.1f} ms" if name.endswith("_ms") else f"{value:,.0f} bytes"
