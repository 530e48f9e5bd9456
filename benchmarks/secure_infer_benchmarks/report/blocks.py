"""The figures of a README as text: one function a block, each for one suite; ratios first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts import network, peers
from secure_infer_benchmarks.report.reading import grouped, heading, label, rows, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

WIDTH, LONGEST = 120, 44
"""Characters of a line of words, and of a name in a table."""
STAGES = ("encrypt_ms", "network_ms", "server_ms", "decrypt_ms")


def block(report: Mapping[str, Any], name: str) -> str:
    """A fenced table and the line that says where it comes from; raises SettingsError for a name or suite that is not there."""
    if name not in BLOCKS:
        raise SettingsError(f"block {name!r}: expected one of {', '.join(BLOCKS)}")
    suite, make = BLOCKS[name]
    held = rows(report, suite)
    if not held:
        raise SettingsError(
            f"block {name!r} is drawn from suite {suite!r}, which the report does not have; "
            f"measure it: secure-infer bench --suite {suite} --out RESULTS.json"
        )
    source = f"secure-infer bench --suite {suite}, {report.get('date', '')}: {reading.machine(report)}"
    return f"```text\n{make(held, report['suites'][suite])}\n\n{source}\n```\n"


def cost(held: list[Row], suite: Suite) -> str:
    """Times plaintext, and where a call's time goes."""
    table = Table("cost", ("", "x plaintext", "call ms", "encrypt", "network", "server", "decrypt"))
    for same in grouped([row for row in held if row.get("figures")], "head").values():
        table.heading(heading(same))
        for row in same:
            ratio = value(row, "ratio")
            cells = (_ms(row, name) for name in ("call_ms", *STAGES))
            table.row(label(row), DASH if ratio is None else words.times(ratio, "x"), *cells)
    return table.text()


def plans(held: list[Row], suite: Suite) -> str:
    """What each published plan takes of the server and of the wire, and how exact it is."""
    table = Table("plans", ("", "plan", "server ms", "predicted", "bytes up", "down", "keys once", "s", "error bound"))
    for row in held:
        if row.get("group", "published") != "published" or not row.get("figures"):
            continue
        smudging = (row.get("security") or {}).get("smudging_bits")
        sizes = (_whole(row, name) for name in ("bytes_up", "bytes_down", "key_bytes"))
        times = (_ms(row, "server_ms"), _ms(row, "predicted_server_ms"))
        table.row(str(row["id"]), str(row["plan"]), *times, *sizes, _or_dash(smudging), _error(row, "error_bound"))
    return table.text()


def mpc(held: list[Row], suite: Suite) -> str:
    """Secret sharing: times plaintext, rounds, and bytes between the parties."""
    table = Table("mpc", ("", "x plaintext", "call ms", "rounds", "bytes up", "down", "between", "error bound"))
    for same in grouped([row for row in held if row.get("scheme") == "mpc" and row.get("figures")], "head").values():
        table.heading(heading(same))
        for row in same:
            ratio = value(row, "ratio")
            counts = (_whole(row, name) for name in ("rounds", "bytes_up", "bytes_down", "link_bytes"))
            told = DASH if ratio is None else words.times(ratio, "x")
            table.row(label(row), told, _ms(row, "call_ms"), *counts, _error(row, "error_bound"))
    return table.text()


def sizing(held: list[Row], suite: Suite) -> str:
    """What one server needs for a query, by head and plan: to be multiplied by clients and queries."""
    table = Table("sizing", ("", "server ms a query", "bytes up", "down", "key of a client"))
    for row in held:
        if row.get("scheme") == "ckks" and row.get("figures") and (row.get("security") or {}).get("model_private"):
            sizes = (_whole(row, name) for name in ("bytes_up", "bytes_down", "key_bytes"))
            table.row(f"{row['head']}, {label(row)}", _ms(row, "server_ms"), *sizes)
    return table.text()


def links(held: list[Row], suite: Suite) -> str:
    """By head: each way over each link: times plaintext, milliseconds, (predicted); * is the fastest of its link."""
    measured = [row for row in held if value(row, "call_ms") is not None and isinstance(row.get("link"), dict)]
    names = {row["link"]["name"]: row["link"] for row in measured}
    columns = [f"{name} {link['megabits']:g} Mbit/s, {link['round_trip_ms']:g} ms" for name, link in names.items()]
    table = Table("network", ("x plaintext, ms (predicted)", *columns))
    for head, same in grouped(measured, "head").items():
        table.heading(head)
        best = {network.fastest(rows_of) for rows_of in network.by_link(same).values()}
        ways: dict[str, dict[str, Row]] = {}
        for row in same:
            ways.setdefault(label(row), {})[row["link"]["name"]] = row
        for way, by_link in ways.items():
            cells = (_link(by_link[name], by_link[name]["id"] in best) if name in by_link else DASH for name in names)
            table.row(way, *cells)
    return table.text() + "\n*: the fastest private way of its link"


def _link(row: Row, best: bool) -> str:
    predicted = value(row, "predicted_ms")
    expected = "" if predicted is None else f" ({words.number(predicted)})"
    ratio = value(row, "ratio")
    over = "" if ratio is None else f"{words.times(ratio, 'x')}  "
    return f"{'* ' if best else ''}{over}{_ms(row, 'call_ms')}{expected}"


def accuracy(held: list[Row], suite: Suite) -> str:
    """Accuracy and agreement, encrypted beside plaintext."""
    columns = ("", "texts", "accuracy", "plaintext", "macro-F1", "plaintext", "same label", "max error", "bound")
    table = Table("accuracy", columns)
    shares = ("accuracy", "plaintext_accuracy", "macro_f1", "plaintext_macro_f1")
    for same in grouped([row for row in held if value(row, "accuracy") is not None], "set").values():
        table.heading(str(same[0].get("set_described", same[0].get("set"))))
        for row in same:
            agree = value(row, "agreement")
            cells = [DASH if (x := value(row, name)) is None else words.percent(x) for name in shares]
            cells = [_whole(row, "texts"), *cells]
            told = DASH if agree is None else words.percent(agree, 2)
            table.row(
                f"{row['head']}, {label(row)}", *cells, told, _error(row, "max_logit_error"), _error(row, "error_bound")
            )
    return table.text()


def others(held: list[Row], suite: Suite) -> str:
    """Other software: how many times our row's time and bytes it takes; reasons where there are no figures."""
    columns = ("", "x ours", "x our bytes", "x our keys", "ms", "up", "down", "keys once", "model private")
    table, told, beside = Table("peers", columns), [], peers.besides(held, suite)
    for workload, same in grouped(held, "workload").items():
        measured = [row for row in same if value(row, peers.timed(row)) is not None]
        told += [f"{row.get('who', row['id'])}, {workload}: {row['reason']}" for row in same if row.get("reason")]
        if measured:
            table.heading(peers.workload_of(workload, measured))
        for row in measured:
            security, ratio = row.get("security") or {}, peers.over(row, beside)
            ratios = beside[row["id"]].ratios if row["id"] in beside else {}
            table.row(
                _marked(row),
                "ours" if row.get("ours") else DASH if ratio is None else words.times(ratio, "x"),
                *(words.times(ratios[name], "x") if name in ratios else DASH for name in ("bytes", "key_bytes")),
                _ms(row, peers.timed(row)),
                *(DASH if (x := value(row, name)) is None else words.size(x) for name in peers.SIZES),
                "yes" if security.get("model_private") else "no" if security else DASH,
            )
    lines = [table.without_empty(DASH).text(), *(line for one in dict.fromkeys(told) for line in wrap(one, WIDTH))]
    if any(row.get("dated") or row.get("published") for row in held):
        lines.append("*: not measured in this run: a published or a committed figure")
    return "\n".join(lines)


def _marked(row: Row) -> str:
    name = peers.called(row)
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return f"{name}{'*' if row.get('dated') or row.get('published') else ''}"


def _ms(row: Row, name: str) -> str:
    found = value(row, name)
    return DASH if found is None else words.number(found)


def _whole(row: Row, name: str) -> str:
    found = value(row, name)
    return DASH if found is None else words.whole(found)


def _error(row: Row, name: str) -> str:
    found = value(row, name)
    return DASH if found is None else words.error(found)


def _or_dash(found: object) -> str:
    return DASH if found is None else str(found)


BLOCKS: dict[str, tuple[str, Callable[[list[Row], Suite], str]]] = {
    "cost": ("cost", cost),
    "plans": ("plans", plans),
    "mpc": ("cost", mpc),
    "sizing": ("cost", sizing),
    "network": ("network", links),
    "accuracy": ("accuracy", accuracy),
    "peers": ("peers", others),
    "mnist": ("mnist", others),
}
"""By name: the suite that a block is drawn from, and how."""
