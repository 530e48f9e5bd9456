"""The suite `network`: who wins on which link, and all of it as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secure_infer_benchmarks.figures import Row, Suite

OFF = 1.5
"""A measurement beyond so many times its prediction, or the prediction beyond so many times it, is marked."""


def winners(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By link and head: of the private ways, the one with the least median and the one with the least prediction.

    regret: what the predicted one's median is of the measured one's, at least 1. ckks_*: the same among the plans of one
    server, where a client chooses by that prediction.
    """
    found = []
    private = [row for row in rows if row["scheme"] != "plaintext"]
    for link, head in dict.fromkeys((row["link"]["name"], row["head"]) for row in private):
        here = [row for row in private if (row["link"]["name"], row["head"]) == (link, head)]
        entry = {"link": link, "head": head, **_winner(here)}
        encrypted = [row for row in here if row["scheme"] == "ckks"]
        if encrypted:
            entry |= {f"ckks_{name}": value for name, value in _winner(encrypted).items()}
        found.append(entry)
    return found


def _winner(rows: Sequence[Row]) -> dict[str, Any]:
    measured = min(rows, key=_median)
    predicted = min(rows, key=lambda row: float(row["counts"]["predicted_ms"]))
    return {
        "measured": measured["id"],
        "predicted": predicted["id"],
        "regret": _median(predicted) / _median(measured),
    }


def _median(row: Row) -> float:
    return float(row["figures"]["call_ms"]["median"])


def off(measured: float, predicted: float) -> str:
    """What the measured is of the predicted, with a mark where the prediction is off.

    >>> off(3.0, 1.0), off(1.2, 1.0)
    ('3.00 !', '1.20  ')
    """
    share = measured / predicted
    return f"{share:.2f} {' ' if 1 / OFF <= share <= OFF else '!'}"


def table(suite: Suite) -> str:
    """The suite as text: every way's ratio to the plaintext call of the same link, beside its prediction."""
    lines: list[str] = []
    shown: tuple[str, str] | None = None
    won = {one["measured"] for one in suite["winners"]}
    for row in suite["rows"]:
        link, figures, counts = row["link"], row["figures"], row["counts"]
        if shown != (link["name"], row["head"]):
            shown = (link["name"], row["head"])
            where = f"{link['name']}, {link['megabits']:g} Mbit/s, {link['round_trip_ms']:g} ms: {row['head']}"
            lines.append(
                f"{where:<60} {'x plain':>8} {'call ms':>8} {'predicted':>9} {'ratio':>6}  {'explained':>9} {'first ms':>9} "
                f"{'up':>9} {'down':>7} {'keys':>9} {'rounds':>6}"
            )
        call, unit = figures["call_ms"]["median"], figures["ratio"]["median"]
        ratio = "" if row["scheme"] == "plaintext" else off(call, counts["predicted_ms"])
        explained = f"{counts['explained_ms']:.1f}" if "explained_ms" in counts else ""
        lines.append(
            f"{'>' if row['id'] in won else ' '} {row['id'].split('/', 2)[2]:<58} {unit:>8.1f} {call:>8.1f} "
            f"{counts['predicted_ms']:>9.1f} {ratio:>7} {explained:>9} {figures['first_call_ms']['median']:>9.0f} "
            f"{counts['bytes_up']:>9,} {counts['bytes_down']:>7,} {counts['key_bytes']:>9,} {counts['rounds']:>6}"
        )
    lines += ["", *_verdicts(suite["winners"]), *_emulation(suite["forwarder"])]
    return "\n".join(lines) + "\n"


def _verdicts(winners: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "> the quickest private way. predicted: the planner's, ! where it is off by more than 1.5 times; explained: of two",
        "  parties, messages that wait for each other. A plaintext call's prediction is its bytes alone.",
    ]
    for one in winners:
        short = {name: one[name].split("/", 2)[2] for name in ("measured", "predicted")}
        said = (
            "as predicted"
            if one["regret"] == 1
            else f"predicted {short['predicted']}, {one['regret']:.2f} times as long"
        )
        client = (
            f"; the client's own choice of plan takes {one['ckks_regret']:.2f} times the quickest's"
            if "ckks_regret" in one
            else ""
        )
        lines.append(f"{one['link']}, {one['head']}: {short['measured']} wins, {said}{client}")
    return lines


def _emulation(forwarder: dict[str, Any]) -> list[str]:
    added = forwarder["call_overhead_ms"]
    lines = [
        f"a forwarder adds {added['median']:.2f} ms to a plaintext call on loopback ({added['low']:.2f} to {added['high']:.2f})"
    ]
    for name, found in forwarder.get("precision", {}).items():
        late = found["late_ms"]
        lines.append(
            f"{name}: messages {late['median']:.2f} ms late one way ({late['quantile_05']:.2f} to {late['quantile_95']:.2f}), "
            f"{found['megabits']:.1f} of {found['megabits_asked']:g} Mbit/s arrive"
        )
    kernel = forwarder.get("kernel")
    if kernel is not None:
        told = kernel.get("reason") or f"{kernel['tbf']:.1f} Mbit/s of payload through tbf, headers counted"
        lines.append(
            f"asked for {kernel['megabits']:g} Mbit/s: {kernel['forwarder']:.1f} through the forwarder; {told}"
        )
    return lines
