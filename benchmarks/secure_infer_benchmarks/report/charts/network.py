"""Calls over links as they are out there, measured beside what the planner says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, heading, label, spread, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def charts(rows: list[Row]) -> list[Chart]:
    """Of the suite `network`."""
    measured = [row for row in rows if value(row, "call_ms") is not None and isinstance(row.get("link"), dict)]
    return [links(held, number) for number, held in enumerate(grouped(measured, "head").values())]


def named(link: Mapping[str, Any]) -> str:
    """A link in words."""
    return f"{link['name']}: {link['megabits']:g} Mbit/s, {link['round_trip_ms']:g} ms there and back"


def by_link(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(named(row["link"]), []).append(row)
    return found


def fastest(rows: list[Row]) -> str:
    """Of one link and head: the id of the quickest way that is not plaintext."""
    private = [row for row in rows if row.get("scheme") != "plaintext"]
    return str(min(private, key=lambda row: value(row, "call_ms") or 0.0)["id"]) if private else ""


def winners(suite: Mapping[str, Any]) -> Table | None:
    """Which way is fastest where, and how much slower the one is that the planner would have taken."""
    held = suite.get("winners")
    if not held:
        return None
    names = {row["id"]: label(row) for row in suite["rows"]}
    table = Table("Fastest, by link and head", ("", "measured", "predicted", "slower than the fastest"))
    for won in held:
        measured, predicted = (names.get(won[key], str(won[key])) for key in ("measured", "predicted"))
        regret = 1.0 if won["measured"] == won["predicted"] else float(won.get("regret", 1.0))
        table.row(f"{won['link']}, {won['head']}", measured, predicted, "not" if regret == 1 else f"{regret:.2f} ×")
    return table


def emulation(forwarder: Mapping[str, Any]) -> list[str]:
    """What the links themselves cost and how exact they are, in sentences."""
    told = []
    added = forwarder.get("call_overhead_ms")
    if added:
        low, middle, high = (words.number(added[name]) for name in ("low", "median", "high"))
        told.append(
            f"The forwarder that makes the links adds {middle} ms to a plaintext call on loopback ({low} to {high})."
        )
    for name, found in (forwarder.get("precision") or {}).items():
        late = words.number(found["late_ms"]["median"])
        rate = f"{words.number(found['megabits'])} of {found['megabits_asked']:g} Mbit/s arrive"
        told.append(f"{name}: messages come {late} ms late one way, {rate}.")
    return told


def links(rows: list[Row], number: int) -> Chart:
    head = heading(rows)
    table = Table(
        f"Over links, {head}",
        ("", "times plaintext", "one call", "predicted", "measured / predicted", "bytes", "rounds"),
    )
    for link, held in by_link(rows).items():
        table.heading(link)
        for row in held:
            measured, predicted = value(row, "call_ms") or 0.0, value(row, "predicted_ms")
            over = DASH if not predicted else words.times(measured / predicted)
            sent = reading.total(row, "bytes_up", "bytes_down", "link_bytes")
            rounds, ratio = value(row, "rounds"), value(row, "ratio")
            table.row(
                label(row),
                DASH if ratio is None else words.times(ratio),
                words.ms(measured),
                DASH if predicted is None else words.ms(predicted),
                over,
                DASH if sent is None else words.whole(sent),
                words.whole(rounds) if rounds else DASH,
            )

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="milliseconds a call, logarithmic")
        at = layout.grouped(by_link(rows).items(), label)
        quickest = {fastest(held) for held in by_link(rows).values()}
        figure, axes = layout.figure()
        for row, y in at:
            best = row["id"] in quickest
            marker, colour = drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER)
            measured, predicted = value(row, "call_ms") or 0.0, value(row, "predicted_ms")
            ends = [measured, *(spread(row, "call_ms") or ())]
            if predicted:
                axes.plot((predicted, measured), (y, y), color=LIGHT["line"], linewidth=2, zorder=1)
                drawing.upright(axes, predicted, y)
                ends.append(predicted)
            drawing.point(axes, measured, y, marker, colour, spread=spread(row, "call_ms"))
            told = words.ms(measured) + (", fastest" if best else "")
            drawing.beside(axes, max(ends), y, told, 9, bold=best)
        everything = [x for row in rows for name in ("call_ms", "predicted_ms") if (x := value(row, name))]
        everything += [x for row in rows for x in spread(row, "call_ms") or ()]
        scales.log(axes, everything, words.tick, room=0.35 if narrow else 0.2, most=4 if narrow else 6)
        drawing.legend(figure, [*drawing.schemes(rows), drawing.Key("predicted", "|", LIGHT["ink"])], 4)
        return figure

    description = (
        "Real sockets, through links of that bandwidth and delay. Markers: medians, with the middle half of the calls; "
        "upright lines: what the planner predicts from its unit costs and the link."
    )
    name = "network" if number == 0 else f"network-{number + 1}"
    return Chart(name, f"Over a network: {head}", description, table, draw)
