"""Rows of a report and what is in them, after one look at whether they are what they should be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_benchmarks.figures import Row

SCHEMES = {"plaintext": "plaintext", "ckks": "CKKS", "mpc": "secret sharing"}


def checked(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The same report; raises SettingsError where a suite's rows are not rows."""
    suites = report.get("suites")
    if not isinstance(suites, dict) or not suites or not all(isinstance(suite, dict) for suite in suites.values()):
        raise SettingsError(
            f"{name}: expected suites by name, got {'none' if suites in (None, {}) else 'something else'}"
        )
    for suite, held in suites.items():
        for row in rows(report, suite):
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise SettingsError(f"{name}: suite {suite}: expected rows with an id")
            if not _sound(row):
                raise SettingsError(
                    f"{name}: suite {suite}, row {row['id']}: expected figures with a median and quartiles"
                )
        seen = [row["id"] for row in rows(report, suite)]
        if len(seen) != len(set(seen)):
            raise SettingsError(f"{name}: suite {suite}: expected ids that differ, got one twice")
        if not isinstance(held.get("rows", []), list):
            raise SettingsError(f"{name}: suite {suite}: expected a list of rows")
    return report


def _sound(row: Row) -> bool:
    figures, counts = row.get("figures", {}), row.get("counts", {})
    if not isinstance(figures, dict) or not isinstance(counts, dict):
        return False
    return all(
        isinstance(figure, dict)
        and all(
            isinstance(figure.get(key), int | float) and math.isfinite(figure[key]) for key in ("median", "low", "high")
        )
        for figure in figures.values()
    )


def rows(report: Mapping[str, Any], suite: str) -> list[Row]:
    """Of a suite; none when the report is without it."""
    held = report["suites"].get(suite, {}).get("rows", [])
    return list(held) if isinstance(held, list) else []


def value(row: Row, name: str) -> float | None:
    """A figure's median, or a count; None when the row has neither."""
    if name in row.get("figures", {}):
        return float(row["figures"][name]["median"])
    count = row.get("counts", {}).get(name)
    return None if count is None else float(count)


def total(row: Row, *names: str) -> float | None:
    """The sum of those that the row has; None when it has none."""
    held = [found for name in names if (found := value(row, name)) is not None]
    return sum(held) if held else None


def spread(row: Row, name: str) -> tuple[float, float] | None:
    """The quartiles of a figure."""
    figure = row.get("figures", {}).get(name)
    return None if figure is None else (float(figure["low"]), float(figure["high"]))


def scheme(row: Row) -> str:
    return SCHEMES.get(row.get("scheme", ""), str(row.get("scheme", "")))


def variant(row: Row) -> str:
    """What follows head and scheme in an id.

    >>> variant({"id": "lan/icd10-chapter/ckks/slots, few bytes", "head": "icd10-chapter", "scheme": "ckks"})
    'slots, few bytes'
    """
    rest = str(row["id"])
    if row.get("head"):
        rest = rest.rpartition(f"{row['head']}/")[2]
    if row.get("scheme"):
        rest = rest.removeprefix(str(row["scheme"]))
    return rest.lstrip("/, ").replace("/", ", ")


def label(row: Row) -> str:
    """Scheme and way, short: "CKKS, few bytes"."""
    return ", ".join(part for part in (scheme(row), variant(row)) if part)


def grouped(held: list[Row], key: str) -> dict[str, list[Row]]:
    """By what the rows have under key, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in held:
        found.setdefault(str(row.get(key, "")), []).append(row)
    return found


def heading(held: list[Row]) -> str:
    """Head and shape of rows of one head."""
    shape = next((row["shape"] for row in held if row.get("shape")), None)
    head = str(held[0].get("head", ""))
    return head if shape is None else f"{head}: {shape}"


def private(row: Row) -> str:
    """input and model, input, or neither."""
    held = row.get("security") or {}
    kept = [name for name in ("input", "model") if held.get(f"{name}_private")]
    return " and ".join(kept) if kept else "neither"


def machine(report: Mapping[str, Any]) -> str:
    """In one line."""
    held = report.get("machine", {})
    versions = held.get("versions", {})
    parts = [
        str(held.get("processor", "an unnamed processor")),
        f"{held.get('cores', '?')} cores",
        f"Python {held.get('python', '?')}",
        *(f"{name} {versions[name]}" for name in ("tenseal",) if name in versions),
    ]
    return ", ".join(parts)
