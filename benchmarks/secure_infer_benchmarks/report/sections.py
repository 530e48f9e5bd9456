"""What the page has to say, in its order: one section a suite, for the suites that the report has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts import accuracy, cost, network, others, peers, plans, scaling
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.reading import rows, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

SUITES = (
    *("cost", "plans", "accuracy", "network", "scaling", "batches", "peers", "mnist", "start", "throughput"),
    "gate",
)


@dataclass(frozen=True)
class Section:
    """tables are shown, more is folded away under one title. notes: short paragraphs."""

    suite: str
    title: str
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    more: list[Table] = field(default_factory=list)
    more_title: str = ""
    notes: list[str] = field(default_factory=list)


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Of a report that `reading.checked` let through."""
    found = []
    for suite in SUITES:
        held = rows(report, suite)
        if held:
            found.append(_SECTIONS[suite](held, report["suites"][suite]))
    if secured := _security(report):
        found.append(Section("security", "What each row keeps private", tables=[secured]))
    return found


def pictures(report: Mapping[str, Any]) -> list[Chart]:
    """Every chart."""
    return [chart for section in sections(report) for chart in section.charts]


def unknown(report: Mapping[str, Any]) -> list[str]:
    """Suites that this page has no section for."""
    return [name for name in report["suites"] if name not in SUITES]


def reasons(held: list[Row]) -> list[str]:
    """Rows without figures."""
    return [f"{row['id']}: {row['reason']}" for row in held if row.get("reason") and not row.get("figures")]


def _cost(held: list[Row], suite: Suite) -> Section:
    columns = ("", "plan", "logit error at most", "bound", "same label", "rounds", "memory of the server")
    table = Table("By head and plan", columns)
    told = (
        ("max_logit_error", words.error),
        ("error_bound", words.error),
        ("agreement", lambda x: words.percent(x, 2)),
    )
    counted = (*told, ("rounds", words.whole), ("server_memory_bytes", words.size))
    for same in reading.grouped(held, "head").values():
        table.heading(reading.heading(same))
        for row in same:
            cells = [DASH if (x := value(row, name)) is None else say(x) for name, say in counted]
            table.row(reading.label(row), str(row.get("plan", DASH)), *cells)
    more, title = [table.without_empty(DASH)], "Plans, and what their answers are worth"
    notes = [f"All of it on this machine: {suite['links']}."] if suite.get("links") else []
    if isinstance(suite.get("memory_bytes"), dict):
        memory = (f"{who} {words.size(size)}" for who, size in suite["memory_bytes"].items())
        notes.append(f"Memory of the processes at the end: {', '.join(memory)}.")
    charts = cost.charts(held)
    return Section("cost", "What privacy costs", charts, more=more, more_title=title, notes=[*notes, *reasons(held)])


def _plans(held: list[Row], suite: Suite) -> Section:
    return Section("plans", "The server by itself, plan by plan", plans.charts(held), notes=reasons(held))


def _accuracy(held: list[Row], suite: Suite) -> Section:
    charts, more = accuracy.charts(held), accuracy.chapters(held)
    return Section(
        "accuracy", "What the answers are worth", charts, more=more, more_title="Label by label", notes=reasons(held)
    )


def _network(held: list[Row], suite: Suite) -> Section:
    won = network.winners(suite)
    notes = reasons(held)
    notes = [*network.emulation(suite.get("forwarder") or {}), *notes]
    return Section("network", "Over a network", network.charts(held), [won] if won else [], notes=notes)


def _plain(told: Any) -> str:
    """A number or a word of a suite's own; nothing for what is nested."""
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        return ""
    return told if isinstance(told, str) else words.number(told)


def _scaling(held: list[Row], suite: Suite) -> Section:
    return Section("scaling", "How the cost grows", scaling.charts(held), notes=reasons(held))


def _batches(held: list[Row], suite: Suite) -> Section:
    return Section("batches", "Many records at once", scaling.batches(held), notes=reasons(held))


def _peers(held: list[Row], suite: Suite) -> Section:
    title = "The same heads with other software"
    found = peers.charts(held, suite, "peers", title)
    told = [one.told for one in peers.besides(held, suite).values() if one.told]
    return Section(
        "peers", "Beside other software", found, [] if found else [peers.table(held, suite, title)], notes=told
    )


def _mnist(held: list[Row], suite: Suite) -> Section:
    title = "MNIST, as in the HomomorphicEncryption.org benchmarking suite"
    found = peers.charts(held, suite, "mnist", title)
    facts = [f"{name.capitalize()}: {told}." for name in ("data", "heads") if (told := _plain(suite.get(name)))]
    for head, shares in (suite.get("accuracy") or {}).items() if isinstance(suite.get("accuracy"), dict) else ():
        told = (
            ", ".join(f"{words.percent(x)} {of}" for of, x in shares.items())
            if isinstance(shares, dict)
            else _plain(shares)
        )
        facts.append(f"Accuracy in plaintext of the head with {head}: {told}.")
    return Section(
        "mnist", "A public workload: MNIST", found, [] if found else [peers.table(held, suite, title)], notes=facts
    )


def _start(held: list[Row], suite: Suite) -> Section:
    charts = others.start(held)
    return Section(
        "start", "The first call of a new process", charts, [] if charts else [others.everything(held, "New processes")]
    )


def _throughput(held: list[Row], suite: Suite) -> Section:
    charts = others.throughput(held)
    return Section("throughput", "Answers a second", charts, [] if charts else [others.everything(held, "Throughput")])


def _gate(held: list[Row], suite: Suite) -> Section:
    columns = ("", "a call", "to an open server's, by turns", "processor time, likewise", "the gate alone")
    table = Table("One query, by what stands before it", columns)
    for row in held:
        call, alone = value(row, "call_ms"), value(row, "gate_alone_us")
        table.row(
            str(row["id"]),
            DASH if call is None else words.ms(call),
            *(_ratio(row, name) for name in ("call_ratio", "processor_ratio")),
            DASH if alone is None else f"{words.number(alone)} µs",
        )
    return Section("gate", "What checks cost", tables=[table])


def _ratio(row: Row, name: str) -> str:
    """With its quartiles: it is close to one."""
    middle, between = value(row, name), reading.spread(row, name)
    if middle is None:
        return DASH
    return f"{middle:.2f}" + ("" if between is None else f" ({between[0]:.2f} to {between[1]:.2f})")


_SECTIONS = {
    "cost": _cost,
    "plans": _plans,
    "accuracy": _accuracy,
    "network": _network,
    "scaling": _scaling,
    "batches": _batches,
    "peers": _peers,
    "mnist": _mnist,
    "start": _start,
    "throughput": _throughput,
    "gate": _gate,
}


def _security(report: Mapping[str, Any]) -> Table | None:
    columns = ("", "input private", "model private", "hidden from", "bits", "smudging bits", "rests on")
    table = Table("Security of every row", columns)
    for suite in report["suites"]:
        held = [row for row in rows(report, suite) if isinstance(row.get("security"), dict)]
        if held:
            table.heading(suite)
        for row in held:
            security = row["security"]
            kept = ("yes" if security.get(f"{name}_private") else "no" for name in ("input", "model"))
            bits = (DASH if security.get(name) is None else str(security[name]) for name in ("bits", "smudging_bits"))
            hidden, rests = (str(security.get(name) or DASH) for name in ("model_hidden_from", "rests_on"))
            table.row(str(row["id"]), *kept, hidden, *bits, rests)
    return table.without_empty(DASH) if table.rows else None
