"""The server's handling of a query by plan, without a network, beside what the planner predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, spread, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = {"published": "the published heads", "smudging": "by smudging"}
SIZES = ("bytes_up", "bytes_down", "key_bytes")


def charts(rows: list[Row]) -> list[Chart]:
    """Of the suite `plans`."""
    measured = [row for row in rows if value(row, "server_ms")]
    return [plans(measured)] if measured else []


def plans(rows: list[Row]) -> Chart:
    columns = ("", "plan", "server", "predicted", "up", "down", "keys, once", "smudging bits", "largest error", "bound")
    table = Table("Plans, the server alone", columns)
    for group, held in grouped(rows, "group").items():
        table.heading(GROUPS.get(group, group))
        for row in held:
            predicted, smudging = value(row, "predicted_server_ms"), (row.get("security") or {}).get("smudging_bits")
            table.row(
                str(row["id"]),
                str(row.get("plan", DASH)),
                words.ms(value(row, "server_ms") or 0.0),
                DASH if predicted is None else words.ms(predicted),
                *(DASH if (x := value(row, name)) is None else words.whole(x) for name in SIZES),
                DASH if smudging is None else str(smudging),
                *(
                    DASH if (x := value(row, name)) is None else words.error(x)
                    for name in ("max_logit_error", "error_bound")
                ),
            )

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="milliseconds of the server, logarithmic")
        groups = grouped(rows, "group").items()
        at = layout.grouped(((GROUPS.get(group, group), held) for group, held in groups), lambda row: str(row["id"]))
        figure, axes = layout.figure()
        for row, y in at:
            measured, predicted = value(row, "server_ms") or 0.0, value(row, "predicted_server_ms")
            ends = [measured, *(spread(row, "server_ms") or ())]
            if predicted:
                axes.plot((predicted, measured), (y, y), color=LIGHT["line"], linewidth=2, zorder=1)
                drawing.upright(axes, predicted, y)
                ends.append(predicted)
            drawing.point(axes, measured, y, *drawing.MARKS["ckks"], spread=spread(row, "server_ms"))
            drawing.beside(axes, max(ends), y, words.ms(measured), 9)
        everything = [x for row in rows for name in ("server_ms", "predicted_server_ms") if (x := value(row, name))]
        everything += [x for row in rows for x in spread(row, "server_ms") or ()]
        scales.log(axes, everything, words.tick, room=0.3, most=4 if narrow else 6)
        keys = [drawing.Key("measured", *drawing.MARKS["ckks"]), drawing.Key("predicted", "|", LIGHT["ink"])]
        drawing.legend(figure, keys, 2)
        return figure

    description = (
        "From the bytes of a request to the bytes of its answer, in one thread, with blinds made ahead; markers are medians, "
        "upright lines what the planner predicts from its unit costs."
    )
    return Chart("plans", "The server by itself, plan by plan", description, table, draw)
