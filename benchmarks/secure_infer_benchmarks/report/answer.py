"""The answer in a few sentences, drawn from the figures: what does it cost to keep the input, and the model, private?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import words
from secure_infer_benchmarks.report.charts import peers
from secure_infer_benchmarks.report.reading import SCHEMES, grouped, rows, total, value

OPERATORS = {"ckks": "one server (CKKS)", "mpc": "three operators, no two of whom collude (secret sharing)"}

HEADS = 2
"""So many are named in the sentences: reports begin with those that matter."""


def cheapest(held: list[Row], scheme: str) -> list[Row]:
    """By head, the row of that scheme with the least ratio that keeps input and model private; of none does, the input."""
    found = []
    for same in grouped(held, "head").values():
        own = [row for row in same if row.get("scheme") == scheme and value(row, "ratio") is not None]
        both = [row for row in own if (row.get("security") or {}).get("model_private")]
        if own:
            found.append(min(both or own, key=lambda row: value(row, "ratio") or 0.0))
    return found[:HEADS]


def sentences(report: Mapping[str, Any]) -> list[str]:
    """Up to four, each of what the report has; what stands between ** is to be set in bold."""
    held = rows(report, "cost")
    told = [_ratios(cheapest(held, scheme), scheme, held) for scheme in OPERATORS]
    told += [_query(held, rows(report, "accuracy")), _peers(report)]
    return [sentence for sentence in told if sentence]


def tiles(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(ratio, of what): the cheapest way of each scheme for each head."""
    held = rows(report, "cost")
    return [
        (words.times(value(row, "ratio") or 0.0), f"{row['head']}, {SCHEMES[scheme]}")
        for scheme in OPERATORS
        for row in cheapest(held, scheme)
    ]


def _ratios(found: list[Row], scheme: str, held: list[Row]) -> str:
    if not found:
        return ""
    plain = {row["head"]: value(row, "call_ms") for row in held if row.get("scheme") == "plaintext"}
    parts: list[str] = []
    for row in found:
        call, beside = words.ms(value(row, "call_ms") or 0.0), plain.get(row["head"])
        instead = "" if beside is None else f" instead of {words.ms(beside)}"
        ratio = words.times(value(row, "ratio") or 0.0).removesuffix(" ×")
        unit = "" if parts else " the plaintext call"
        parts.append(f"**{ratio} times**{unit} for {row['head']} ({call}{instead})")
    both = all((row.get("security") or {}).get("model_private") for row in found)
    what = "the input and the model" if both else "the input"
    return f"With {OPERATORS[scheme]}, keeping {what} private costs {words.listed(parts)}."


def _query(held: list[Row], counted: list[Row]) -> str:
    """Bytes of a query, and what its answer is worth: either, or both in one sentence."""
    told = [part for part in (_bytes(held), _accuracy(counted)) if part]
    return f"A query {' and '.join(told)}." if told else ""


def _bytes(held: list[Row]) -> str:
    encrypted = [row for row in held if row.get("scheme") in OPERATORS and total(row, "bytes_up", "bytes_down")]
    if not encrypted:
        return ""
    sent = [total(row, "bytes_up", "bytes_down") or 0.0 for row in encrypted]
    between = (
        f"**{words.size(min(sent))} to {words.size(max(sent))}**" if len(sent) > 1 else f"**{words.size(sent[0])}**"
    )
    keys = max(value(row, "key_bytes") or 0.0 for row in encrypted)
    once = f" (public keys, sent once: up to {words.size(keys)})" if keys else ""
    return f"moves {between}{once}"


def _accuracy(held: list[Row]) -> str:
    counted = [row for row in held if value(row, "agreement") is not None and value(row, "accuracy") is not None]
    if not counted:
        return ""
    agree = words.percent(min(value(row, "agreement") or 0.0 for row in counted), 2)
    first = next(iter(grouped(counted, "set").values()))
    best = max(first, key=lambda row: value(row, "accuracy") or 0.0)
    plain = value(best, "plaintext_accuracy")
    beside = "" if plain is None else f", {words.percent(plain)} in plaintext"
    right = f"{words.percent(value(best, 'accuracy') or 0.0)} of {words.whole(value(best, 'texts') or 0)}"
    least = "all" if agree == "100%" else f"at least {agree}"
    of = f"({best['head']}: {right} right{beside})"
    return f"gets the same label as in plaintext for **{least}** of the texts of every set {of}"


def _peers(report: Mapping[str, Any]) -> str:
    over, faster = peers.score(rows(report, "peers"), report["suites"].get("peers", {}))
    if not over:
        return ""
    slower = [ratio for ratio in over if ratio >= 1]
    told = ""
    if slower:
        span = (
            f"{words.times(min(slower))} to {words.times(max(slower))}" if len(slower) > 1 else words.times(slower[0])
        )
        who = "All" if not faster else f"{len(slower)} of"
        told = f"{who} {len(over)} rows of other software on the same heads take longer on the server, **{span}** ours"
    ahead = words.listed([f"{name} ({words.times(by)} faster)" for name, by in faster])
    if not faster:
        return told + "."
    return f"{told}; ahead of us: {ahead}." if told else f"Ahead of us among other software: {ahead}."
