"""How cost grows: with the head's sizes, with the batch, with callers; and what many records at once cost each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, spread, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = {
    "d": "features d",
    "h": "hidden units h",
    "K": "classes K",
    "batch": "records a call",
    "clients": "clients at once",
    "sessions": "sessions opened",
}
MEASURES = {
    "records_a_second": "records a second",
    "server_ms": "server ms",
    "computing_ms": "party ms",
    "call_ms": "call ms",
    "first_call_ms": "first call ms",
}
"""What is shown of a row: what the planner predicts, else the first of these that it has."""


def charts(rows: list[Row]) -> list[Chart]:
    """Of the suite `scaling`."""
    measured = [row for row in rows if isinstance(row.get("value"), int | float) and measure(row)]
    return [scaling(measured)] if any(_grows(held) for held in grouped(measured, "axis").values()) else []


def measure(row: Row) -> str | None:
    """The figure that a panel shows of a row."""
    names = [row.get("predicts"), *MEASURES]
    return next((name for name in names if name in row.get("figures", {})), None)


def predicted(row: Row) -> float | None:
    """Of that figure."""
    name = measure(row) or ""
    return value(row, "predicted_ms" if name.endswith("_ms") else f"predicted_{name}")


def _grows(rows: list[Row]) -> bool:
    """Whether there is more than one point to be joined."""
    return len({row["value"] for row in rows}) > 1


def lines(rows: list[Row]) -> dict[str, list[Row]]:
    """By scheme, in order of what grows."""
    return grouped(sorted(rows, key=lambda row: float(row["value"])), "scheme")


def titled(axis: str, rows: list[Row]) -> str:
    """Of a panel: the figures shown, of each scheme its own where they differ, and what grows."""
    names = dict.fromkeys(MEASURES.get(measure(row) or "", measure(row) or "") for row in rows)
    return f"{' and '.join(names)}, by {AXES.get(axis, axis)}"


def scaling(rows: list[Row]) -> Chart:
    axes_of = grouped(rows, "axis")
    columns = ("", "measured", "predicted", "measured / predicted", "a call", "predicted", "bytes", "memory", "plan")
    table = Table("Measured and predicted, by what grows", columns)
    for axis, held in axes_of.items():
        for same in lines(held).values():
            table.heading(f"{titled(axis, same)}: {reading.scheme(same[0])}")
            for row in same:
                name, expected = measure(row) or "", predicted(row)
                told = words.ms if name.endswith("_ms") else words.number
                middle = value(row, name) or 0.0
                calls = (value(row, "call_ms"), value(row, "predicted_call_ms"))
                sent, memory = reading.total(row, "bytes_up", "bytes_down", "link_bytes"), value(row, "memory_bytes")
                table.row(
                    f"{row['value']:,}",
                    told(middle),
                    DASH if expected is None else told(expected),
                    f"{middle / expected:.2f}" if expected else DASH,
                    *(DASH if x is None else words.ms(x) for x in calls),
                    DASH if sent is None else words.whole(sent),
                    DASH if memory is None else words.size(memory),
                    str(row.get("plan", DASH)),
                )
    shown = {axis: held for axis, held in axes_of.items() if _grows(held)}

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, panels, scales

        titles = [titled(axis, held) for axis, held in shown.items()]
        figure, found = panels.side_by_side(narrow, titles, 210, across=2)
        for axes, held in zip(found, shown.values(), strict=True):
            seen: list[float] = []
            for same in lines(held).values():
                marker, colour = drawing.MARKS.get(same[0].get("scheme", ""), drawing.OTHER)
                x, y = [float(row["value"]) for row in same], [value(row, measure(row) or "") or 0.0 for row in same]
                low, high = zip(*(spread(row, measure(row) or "") or (0.0, 0.0) for row in same), strict=True)
                axes.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.6)
                axes.vlines(x, low, high, color=colour, linewidth=2.2)
                expected = [(at, p) for at, row in zip(x, same, strict=True) if (p := predicted(row))]
                for at, p in expected:
                    axes.plot([at], [p], color=colour, marker="_", markersize=11, markeredgewidth=2.4)
                seen += [*y, *(p for _, p in expected)]
            values = sorted({float(row["value"]) for row in held})
            scales.log(axes, values, words.tick)
            axes.xaxis.set_ticks(values)
            scales.log(axes, seen, words.tick, which="y", most=5)
        keys = drawing.schemes(rows, line="-")
        drawing.legend(figure, [*keys, drawing.Key("predicted", "_", LIGHT["ink"])], 4)
        return figure

    description = (
        "Both axes are logarithmic. Markers: medians, with the middle half of the repeats; short level lines: what the planner "
        "predicts from its unit costs: under CKKS the server's time, under secret sharing a party's computing, which counts "
        "neither waiting nor gRPC."
    )
    return Chart("scaling", "How the cost grows", description, table, draw)


def batches(rows: list[Row]) -> list[Chart]:
    """Of the suite `batches`: its one chart."""
    rows = [row for row in rows if value(row, "wall_ms_a_record") is not None]
    if not rows:
        return []
    columns = (
        "",
        "a record",
        "server, a record",
        "records",
        "up, a record",
        "down, a record",
        "smudging bits",
        "max logit error",
    )
    table = Table("Many records at once", columns)
    for held in grouped(rows, "head").values():
        table.heading(reading.heading(held))
        for row in held:
            names = ("records", "bytes_up_a_record", "bytes_down_a_record")
            sizes = [DASH if (x := value(row, name)) is None else words.whole(x) for name in names]
            server, error = value(row, "server_ms_a_record"), value(row, "max_logit_error")
            table.row(
                reading.label(row),
                words.ms(value(row, "wall_ms_a_record") or 0.0),
                DASH if server is None else words.ms(server),
                *sizes,
                str((row.get("security") or {}).get("smudging_bits", DASH)),
                DASH if error is None else words.error(error),
            )

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="milliseconds a record, logarithmic")
        groups = grouped(rows, "head").values()
        at = layout.grouped(((reading.heading(held), held) for held in groups), reading.label)
        figure, axes = layout.figure()
        everything = []
        for row, y in at:
            wall, server = value(row, "wall_ms_a_record") or 0.0, value(row, "server_ms_a_record")
            if server:
                axes.plot((server, wall), (y, y), color=LIGHT["line"], linewidth=2, zorder=1)
                drawing.point(axes, server, y, "s", LIGHT["vermillion"], hollow=True)
                everything.append(server)
            drawing.point(axes, wall, y, "o", LIGHT["blue"], spread=spread(row, "wall_ms_a_record"))
            drawing.beside(
                axes,
                max(wall, (spread(row, "wall_ms_a_record") or (wall, wall))[1]),
                y,
                f"{words.ms(wall)}, {words.number(1e3 / wall)} a second",
                9,
            )
            everything.append(wall)
        scales.log(axes, everything, words.tick, room=0.9 if narrow else 0.5, most=4 if narrow else 6)
        keys = [
            drawing.Key("all of it", "o", LIGHT["blue"]),
            drawing.Key("server", "s", LIGHT["vermillion"], hollow=True),
        ]
        drawing.legend(figure, keys, 2)
        return figure

    description = (
        "Time of a batch over its records: encrypting, both ways, the server and decrypting; and the server alone."
    )
    return [Chart("batches", "Many records at once", description, table, draw)]
