"""First calls of new processes, and what a server answers a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import reading, words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = (
    ("import_ms", "import", "grey", "/////"),
    ("open_ms", "connect, keys", "green", "|||"),
    ("first_call_ms", "first call", "blue", ""),
)
RATES = ("answers_a_second", "records_a_second")


def everything(rows: list[Row], caption: str) -> Table:
    """Every figure and count that rows have, by their own names."""
    names = list(dict.fromkeys(name for row in rows for kind in ("figures", "counts") for name in row.get(kind, {})))
    table = Table(caption, ("", *(name.replace("_", " ") for name in names)))
    for row in rows:
        table.row(str(row["id"]), *(_told(row, name) for name in names))
    return table


def _told(row: Row, name: str) -> str:
    held = row.get("figures", {}).get(name)
    if held is not None:
        return f"{words.number(held['median'])} ({words.number(held['low'])} to {words.number(held['high'])})"
    count = row.get("counts", {}).get(name)
    if isinstance(count, int | float) and not isinstance(count, bool):
        return words.whole(count) if float(count).is_integer() else words.number(count)
    return DASH if count is None else str(count)


def start(rows: list[Row]) -> list[Chart]:
    """Of the suite `start`."""
    rows = [row for row in rows if all(value(row, name) is not None for name, *_ in PARTS)]
    if not rows:
        return []

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="milliseconds to the first answer")
        groups = grouped(rows, "head").values()
        at = layout.grouped(((reading.heading(held), held) for held in groups), reading.label)
        figure, axes = layout.figure()
        ends = []
        for row, y in at:
            end = drawing.stacked(axes, y, [(value(row, name) or 0.0, *look) for name, _, *look in PARTS])
            ends.append(end)
            drawing.beside(axes, end, y, words.ms(end))
        scales.linear(axes, max(ends) * 1.2)
        keys = [drawing.patch(told, *look) for _, told, *look in PARTS]
        drawing.legend(figure, keys, 3)
        return figure

    description = (
        "What a new process waits for until its first answer, medians; by whether it has a key ring, and a filled one."
    )
    return [
        Chart("start", "To the first answer of a new process", description, everything(rows, "New processes"), draw)
    ]


def throughput(rows: list[Row]) -> list[Chart]:
    """Of the suite `throughput`."""
    name = next((name for name in RATES if any(value(row, name) is not None for row in rows)), None)
    rows = [row for row in rows if name is not None and value(row, name) is not None]
    if not rows or name is None:
        return []

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, under=name.replace("_", " "))
        at = [(row, layout.row(str(row["id"]))) for row in rows]
        figure, axes = layout.figure()
        for row, y in at:
            rate = value(row, name) or 0.0
            axes.barh(y, rate, height=13, color=LIGHT["blue"])
            low, high = reading.spread(row, name) or (rate, rate)
            axes.plot((low, high), (y, y), color=LIGHT["ink"], linewidth=1.4, solid_capstyle="butt")
            drawing.beside(axes, max(rate, high), y, words.number(rate), bold=True)
        scales.linear(axes, 1.2 * max(value(row, name) or 0.0 for row in rows))
        return figure

    description = (
        "Requests encrypted beforehand and sent again and again; thin lines are the middle half of the slices of time. The "
        "engine alone, in processes without server or client, is what the machine gives at best."
    )
    return [Chart("throughput", "What a server answers a second", description, everything(rows, "Throughput"), draw)]
