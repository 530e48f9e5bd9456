"""What privacy costs a query: beside plaintext, by stages, in bytes, and latency against bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, heading, label, spread, total, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = (
    ("encrypt_ms", "encrypt, or split", "blue", ""),
    ("network_ms", "network", "grey", "/////"),
    ("server_ms", "server", "vermillion", ""),
    ("decrypt_ms", "decrypt, or join", "green", "|||"),
)
SIZES = (
    ("bytes_up", "up", "^", "blue"),
    ("bytes_down", "down", "v", "vermillion"),
    ("key_bytes", "keys, once", "s", "green"),
    ("link_bytes", "between the parties", "D", "purple"),
)


def charts(rows: list[Row]) -> list[Chart]:
    """Of the suite `cost`: those for which its rows have figures."""
    measured = [row for row in rows if value(row, "call_ms") is not None]
    found = [cost(measured)] if any(value(row, "ratio") is not None for row in measured) else []
    encrypted = [row for row in measured if row.get("scheme") != "plaintext"]
    if any(value(row, "server_ms") is not None for row in encrypted):
        found.append(breakdown([row for row in measured if total(row, *(name for name, *_ in STAGES))]))
    if encrypted and any(value(row, "bytes_up") for row in encrypted):
        found += [sizes(measured), pareto(encrypted)]
    return found


def cost(rows: list[Row]) -> Chart:
    table = Table(
        "What a call costs beside the plaintext call",
        ("", "times plaintext", "middle half", "one call", "repeats", "private"),
    )
    rows = [row for row in rows if value(row, "ratio") is not None]
    for held in grouped(rows, "head").values():
        table.heading(heading(held))
        for row in held:
            low, high = spread(row, "ratio") or (0.0, 0.0)
            middle = f"{low:.2f} to {high:.2f}"
            repeats = str(row["figures"]["ratio"].get("repeats", DASH))
            ratio, call = words.times(value(row, "ratio") or 0), words.ms(value(row, "call_ms") or 0)
            table.row(label(row), ratio, middle, call, repeats, reading.private(row))

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, under="times the plaintext call of the same server (plaintext = 1)")
        at = layout.grouped(((heading(held), held) for held in grouped(rows, "head").values()), label)
        figure, axes = layout.figure()
        ratios = [max(value(row, "ratio") or 0.0, *(spread(row, "ratio") or (0.0,))) for row in rows]
        for row, y in at:
            ratio = value(row, "ratio") or 0.0
            colour = drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER)[1]
            axes.barh(y, ratio, height=13, color=colour)
            low, high = spread(row, "ratio") or (ratio, ratio)
            axes.plot((low, high), (y, y), color=LIGHT["ink"], linewidth=1.4, solid_capstyle="butt")
            axes.plot((1, 1), (y - 10, y + 10), color=LIGHT["ink"], linewidth=1, linestyle=(0, (3, 2)))
            told = f"{words.times(ratio)}  ({words.ms(value(row, 'call_ms') or 0)})"
            drawing.beside(axes, max(ratio, high), y, told, bold=row.get("scheme") != "plaintext")
        scales.linear(axes, max(ratios) * (1.6 if narrow else 1.32))
        return figure

    description = (
        "Bars: the median of the call's time over that of the plaintext call in the same round, so that a slow moment of the "
        "machine hits both. Thin lines: the middle half of the rounds. Dashed: plaintext."
    )
    return Chart("cost", "What privacy costs: times the plaintext call", description, table, draw)


def breakdown(rows: list[Row]) -> Chart:
    table = Table("Where a call's time goes, medians", ("", *(told for _, told, *_ in STAGES), "call"))
    for held in grouped(rows, "head").values():
        table.heading(heading(held))
        for row in held:
            cells = [value(row, name) for name in (*(name for name, *_ in STAGES), "call_ms")]
            table.row(label(row), *(DASH if cell is None else words.ms(cell) for cell in cells))

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=2 if narrow else 1, under="milliseconds")
        at = layout.grouped(((heading(held), held) for held in grouped(rows, "head").values()), label)
        figure, axes = layout.figure()
        ends = []
        for row, y in at:
            end = drawing.stacked(axes, y, [(value(row, name) or 0.0, *look) for name, _, *look in STAGES])
            ends.append(end)
            drawing.beside(axes, end, y, words.ms(value(row, "call_ms") or end))
        scales.linear(axes, max(ends) * (1.3 if narrow else 1.15))
        keys = [drawing.patch(told, *look) for _, told, *look in STAGES]
        drawing.legend(figure, keys, 2 if narrow else 4)
        return figure

    description = (
        "Medians of each stage, one after the other. Server: loading, evaluating and blinding. "
        "Network: all of the call that neither side computes, gRPC included."
    )
    return Chart("breakdown", "Where the time goes", description, table, draw)


def sizes(rows: list[Row]) -> Chart:
    rows = [row for row in rows if any(value(row, name) for name, *_ in SIZES)]
    table = Table("Bytes of a query, and of keys", ("", *(told for _, told, *_ in SIZES)))
    for held in grouped(rows, "head").values():
        table.heading(heading(held))
        for row in held:
            table.row(label(row), *(words.whole(b) if (b := value(row, name)) else DASH for name, *_ in SIZES))

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=2 if narrow else 1, under="bytes, logarithmic")
        at = layout.grouped(((heading(held), held) for held in grouped(rows, "head").values()), label)
        figure, axes = layout.figure()
        for row, y in at:
            shown = [(value(row, name) or 0.0, marker, colour) for name, _, marker, colour in SIZES if value(row, name)]
            axes.plot((min(shown)[0], max(shown)[0]), (y, y), color=LIGHT["line"], linewidth=2, zorder=1)
            for x, marker, colour in reversed(shown):
                # Keys are hollow: of small heads they are as large as a query, and lie on its marker.
                drawing.point(axes, x, y, marker, LIGHT[colour], hollow=colour == "green")
        everything = [b for row in rows for name, *_ in SIZES if (b := value(row, name))]
        scales.log(axes, everything, words.size_tick, most=4 if narrow else 6)
        keys = [drawing.Key(told, marker, LIGHT[colour], hollow=colour == "green") for _, told, marker, colour in SIZES]
        drawing.legend(figure, keys, 2 if narrow else 4)
        return figure

    description = "What a query sends and gets back, and what is sent once before the first: public keys."
    return Chart("bytes", "Bytes: up, down, keys", description, table, draw)


def pareto(rows: list[Row]) -> Chart:
    rows = [row for row in rows if value(row, "bytes_up") and value(row, "call_ms")]
    table = Table("Latency against bytes", ("", "one call", "bytes of a query", "on the frontier"))
    alike = [same for held in grouped(rows, "head").values() for same in grouped(held, "scheme").values()]
    best = {row["id"] for same in alike for row in frontier(same)}
    for held in grouped(rows, "head").values():
        table.heading(heading(held))
        for number, row in enumerate(held, 1):
            cells = (
                words.ms(value(row, "call_ms") or 0),
                words.whole(moved(row)),
                "yes" if row["id"] in best else "no",
            )
            table.row(f"{number}  {label(row)}", *cells)

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, panels, scales

        heads = grouped(rows, "head")
        height = 110 + 20 * max(5, *map(len, heads.values()))
        figure, found = panels.side_by_side(narrow, [heading(held) for held in heads.values()], height, across=1)
        for axes, held in zip(found, heads.values(), strict=True):
            for same in grouped(held, "scheme").values():
                line = sorted((moved(row), value(row, "call_ms") or 0.0) for row in frontier(same))
                axes.step(*zip(*line, strict=True), where="post", color=LIGHT["muted"], linewidth=1.2)
            for number, row in enumerate(held, 1):
                x, y = moved(row), value(row, "call_ms") or 0.0
                drawing.point(axes, x, y, *drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER))
                panels.below(axes, x, y, str(number))
            scales.log(axes, [moved(row) for row in held], words.size_tick, most=4 if narrow else 6)
            calls = [value(row, "call_ms") or 0.0 for row in held]
            scales.log(axes, [min(calls) / 1.2, max(calls)], words.tick, which="y", most=5)
            axes.set_xlabel("milliseconds a call, by bytes of a query on all wires", loc="left")
            if not narrow:
                panels.key_beside(figure, axes, [f"{number}  {label(row)}" for number, row in enumerate(held, 1)])
        drawing.legend(figure, drawing.schemes(rows), 3)
        return figure

    description = (
        "Both axes are logarithmic; nearer to the lower left corner is better. Lines join, for each head and scheme, the "
        "plans that no other beats in both. Numbers are those of the table."
    )
    return Chart("pareto", "Latency against bytes", description, table, draw)


def moved(row: Row) -> float:
    """Bytes of a query on all wires."""
    return total(row, "bytes_up", "bytes_down", "link_bytes") or 0.0


def frontier(rows: list[Row]) -> list[Row]:
    """Rows that no other row beats in latency and in bytes."""
    held = [(value(row, "call_ms") or 0.0, moved(row), row) for row in rows]
    return [
        row for ms, size, row in held if not any(a <= ms and b <= size and (a, b) != (ms, size) for a, b, _ in held)
    ]
