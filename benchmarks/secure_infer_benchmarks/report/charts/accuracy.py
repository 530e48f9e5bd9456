"""What answers are worth: accuracy beside plaintext's, how probabilities hold, how far logits are off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report import words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, label, scheme, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILES = ("0.5", "0.9", "0.99", "0.999", "1")
QUANTILE_NAMES = ("half", "90%", "99%", "99.9%", "all")


def charts(rows: list[Row]) -> list[Chart]:
    """Of the suite `accuracy`."""
    found = []
    counted = [row for row in rows if value(row, "accuracy") is not None]
    if counted:
        found.append(accuracy(counted))
    if curves := [row for row in counted if row.get("reliability")]:
        found.append(reliability(curves))
    if errors := [row for row in rows if (row.get("logit_error_quantiles") or {}).get("1")]:
        found.append(logit_errors(errors))
    return found


def chapters(rows: list[Row]) -> list[Table]:
    """One table a set and head: the schemes of the first row that has chapters."""
    found = []
    for row in whole(rows):
        of = f"{row.get('set_described', row.get('set'))}, {row['head']}, {scheme(row)}"
        if row.get("chapters"):
            table = Table(of, ("", "texts", "precision", "recall", "F1", "F1 in plaintext"))
            for chapter in row["chapters"]:
                shares = (chapter[name] for name in ("precision", "recall", "f1", "plaintext_f1"))
                table.row(str(chapter["label"]), words.whole(chapter["texts"]), *(words.percent(x) for x in shares))
            found.append(table)
    return found


def title(held: list[Row]) -> str:
    """The set, and how many texts it has."""
    texts = value(held[0], "texts")
    described = str(held[0].get("set_described", held[0].get("set", "")))
    return described if texts is None else f"{described}: {words.whole(texts)} texts"


def named(row: Row) -> str:
    return f"{row['head']}, {label(row)}"


def whole(rows: list[Row]) -> list[Row]:
    """Those asked in the plain way of their scheme: other ways are of fewer texts, which tell no more of a head's accuracy."""
    return [row for row in rows if row.get("way") in (None, row.get("scheme"))] or rows


def summary(rows: list[Row]) -> Table:
    """Every row's figures."""
    plain = "in plaintext"
    columns = ("", "texts", "accuracy", plain, "macro-F1", plain, "same label", "calibration error", plain)
    table = Table("Accuracy, encrypted beside plaintext", columns)
    names = ["accuracy", "plaintext_accuracy", "macro_f1", "plaintext_macro_f1", "agreement"]
    names += ["calibration_error", "plaintext_calibration_error"]
    for held in grouped(rows, "set").values():
        table.heading(title(held))
        for row in held:
            digits = {"agreement": 2}
            cells = [
                DASH if (x := value(row, name)) is None else words.percent(x, digits.get(name, 1)) for name in names
            ]
            texts = value(row, "texts")
            table.row(named(row), DASH if texts is None else words.whole(texts), *cells)
    return table


def accuracy(rows: list[Row]) -> Chart:
    table, rows = summary(rows), whole(rows)

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing

        layout = drawing.Rows(narrow, legend=1, under="accuracy")
        at = []
        for held in grouped(rows, "set").values():
            layout.heading(title(held))
            at += [(same, layout.row(head)) for head, same in grouped(held, "head").items()]
        figure, axes = layout.figure()
        shares = [
            x for row in rows for name in ("accuracy", "plaintext_accuracy") if (x := value(row, name)) is not None
        ]
        low, high = min(shares), max(shares)
        room = max(0.02, high - low)
        axes.set_xlim(max(0.0, low - 0.08 * room - 0.005), min(1.0, high) + room * (0.75 if narrow else 0.5))
        for same, y in at:
            plain = value(same[0], "plaintext_accuracy")
            if plain is not None:
                drawing.upright(axes, plain, y, 11)
            for row, up in zip(same, (-4.5, 4.5, 0), strict=False):
                marker, colour = drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER)
                drawing.point(axes, value(row, "accuracy") or 0.0, y + up, marker, colour)
            most = max(value(row, "accuracy") or 0.0 for row in same)
            agree = [x for row in same if (x := value(row, "agreement")) is not None]
            told = words.percent(value(same[0], "accuracy") or 0.0)
            told += f", {words.percent(min(agree), 2)} same labels" if agree else ""
            drawing.beside(axes, most, y, told, 9)
        step = 0.05 if room < 0.2 else 0.1
        axes.xaxis.set_ticks([step * n for n in range(1, 21) if axes.get_xlim()[0] <= step * n <= 1.0001])
        axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}%")
        drawing.legend(figure, [*drawing.schemes(rows), drawing.Key("plaintext", "|", LIGHT["ink"])], 4)
        return figure

    description = (
        "Share of texts whose label is right. The upright line is the same head in plaintext, on the same texts; the axis does "
        "not begin at 0. Same labels: encrypted and plaintext agree, whether right or not; of several schemes, the least."
    )
    return Chart("accuracy", "What the answers are worth: accuracy beside plaintext", description, table, draw)


def reliability(rows: list[Row]) -> Chart:
    first = next(iter(grouped(whole(rows), "set").values()))
    heads = dict(list(grouped(first, "head").items())[:3])
    table = Table(f"Reliability on {title(first)}", ("stated probability", "texts", "mean stated", "right"))
    for head, same in heads.items():
        for row in same:
            table.heading(f"{head}, {scheme(row)}")
            for band in row["reliability"]:
                if band["texts"]:
                    name = f"{words.percent(band['from'], 0)} to {words.percent(band['to'], 0)}"
                    shares = (words.percent(band[key]) for key in ("confidence", "accuracy"))
                    table.row(name, words.whole(band["texts"]), *shares)

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, panels

        figure, found = panels.side_by_side(narrow, list(heads), 250, across=len(heads))
        for axes, same in zip(found, heads.values(), strict=True):
            axes.plot((0, 1), (0, 1), color=LIGHT["muted"], linewidth=1, linestyle=(0, (3, 2)))
            for row, size in zip(same, (8, 5, 3), strict=False):
                bands = [band for band in row["reliability"] if band["texts"]]
                marker, colour = drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER)
                x, y = ([band[key] for band in bands] for key in ("confidence", "accuracy"))
                axes.plot(x, y, color=colour, marker=marker, markersize=size, linewidth=1.4)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_ticks([0.25, 0.5, 0.75, 1])
                axis.set_major_formatter(lambda x, _: f"{100 * x:.0f}%")
            axes.set_xlabel("probability that the answer states", loc="left")
        keys = drawing.schemes(first, line="-")
        drawing.legend(figure, [*keys, drawing.Key("as stated", "", LIGHT["muted"], line="--")], 4)
        return figure

    description = (
        f"{title(first)}. Upwards: share of answers that are right, by the probability they state. On the dashed line a stated "
        "70% is right seven times in ten. Decrypted logits hardly move these curves, so schemes lie on each other."
    )
    return Chart("reliability", "Can the stated probabilities be trusted?", description, table, draw)


def logit_errors(rows: list[Row]) -> Chart:
    table = Table("Error of a logit, by share of logits", ("", *QUANTILE_NAMES, "bound"))
    for held in grouped(rows, "set").values():
        table.heading(title(held))
        for row in held:
            shares = [row["logit_error_quantiles"].get(q) for q in QUANTILES]
            cells = [DASH if x is None else words.error(x) for x in (*shares, value(row, "error_bound"))]
            table.row(named(row), *cells)

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="error of a logit, logarithmic")
        at = layout.grouped(((title(held), held) for held in grouped(rows, "set").values()), named)
        figure, axes = layout.figure()
        everything = []
        for row, y in at:
            quantiles = [x for q in QUANTILES if (x := row["logit_error_quantiles"].get(q))]
            colour = drawing.MARKS.get(row.get("scheme", ""), drawing.OTHER)[1]
            axes.plot((quantiles[0], quantiles[-1]), (y, y), color=colour, linewidth=3, solid_capstyle="round")
            for x in quantiles:
                axes.plot([x], [y], marker="o", markersize=5, color=colour)
            bound = value(row, "error_bound")
            if bound is not None:
                drawing.upright(axes, bound, y)
            everything += [*quantiles, *([bound] if bound else [])]
        scales.log(axes, everything, lambda x: f"{x:.0e}", most=4 if narrow else 6)
        keys = [
            drawing.Key("half, 90%, 99%, 99.9% and all logits", "o", LIGHT["muted"], line="-"),
            drawing.Key("bound", "|", LIGHT["ink"]),
        ]
        drawing.legend(figure, keys, 2)
        return figure

    description = (
        "How far decrypted logits are from plaintext's, and the bound that the plan promises before any query."
    )
    return Chart("errors", "How far logits are off", description, table, draw)
