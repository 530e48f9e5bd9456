"""The same heads with other software: who is ahead by how much, and what each of them keeps private."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.report import words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import grouped, spread, total, value
from secure_infer_benchmarks.report.tables import Table
from secure_infer_benchmarks.report.words import DASH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ("bytes_up", "bytes_down", "key_bytes")


@dataclass(frozen=True)
class Beside:
    """A peer's row beside ours. to: the id of our row. ratios: how many times ours, by measure; below 1 the peer is ahead.
    told: in words, where it is."""

    to: str
    ratios: Mapping[str, float]
    told: str = ""


def charts(rows: list[Row], suite: Suite, name: str, title: str) -> list[Chart]:
    """Of the suites `peers` and `mnist`, which are alike; name: of the picture."""
    measured = [row for row in rows if value(row, timed(row)) is not None]
    return [chart(rows, measured, suite, name, title)] if measured else []


def called(row: Row) -> str:
    """Who, and which way of writing it, without what the heading above says already; where ids say it shorter, those."""
    if not str(row["id"]).startswith(str(row.get("workload")).partition(",")[0]):
        return str(row["id"]).replace(f", {str(row.get('shape')).replace(' -> ', '-')}/", ", ")
    variant = str(row.get("variant", ""))
    if row.get("ours"):
        variant = f"weights {row['weights']}" if row.get("weights") else variant.removeprefix("CKKS, ")
    return ", ".join(filter(None, (str(row.get("who", "")), variant))) or str(row["id"])


def timed(row: Row) -> str:
    """The figure that is compared: secret sharing is measured by the query, not by the server."""
    return "call_ms" if row.get("weights") and "call_ms" in row.get("figures", {}) else "server_ms"


def besides(rows: list[Row], suite: Suite) -> dict[str, Beside]:
    """By the id of a peer's row: as the suite says, else beside our fastest row of its workload (`unit`)."""
    if "ahead" in suite:
        return {one["id"]: Beside(one["to"], one["ratios"], one.get("told", "")) for one in suite["ahead"]}
    found = {}
    for same in grouped(rows, "workload").values():
        for row in same:
            ours = unit(row, same)
            if ours is None or row.get("ours") or value(row, "server_ms") is None:
                continue
            pairs = {name: (value(row, name), value(ours, name)) for name in ("server_ms", "key_bytes")}
            pairs["bytes"] = total(row, "bytes_up", "bytes_down"), total(ours, "bytes_up", "bytes_down")
            found[row["id"]] = Beside(ours["id"], {name: a / b for name, (a, b) in pairs.items() if a and b})
    return found


def unit(row: Row, rows: list[Row]) -> Row | None:
    """Our row that a peer's is held against: the fastest one of its workload that hides the model, and rests on the same.

    What needs operators who do not collude is never held against what one server does alone.
    """
    ours = [one for one in rows if one.get("ours") and value(one, "server_ms") and _shared(one) == _shared(row)]
    hidden = [one for one in ours if (one.get("security") or {}).get("model_private")]
    return min(hidden or ours, key=lambda one: value(one, "server_ms") or 0.0) if ours else None


def _shared(row: Row) -> bool:
    """Whether it rests on several operators."""
    return "collu" in str((row.get("security") or {}).get("rests_on", ""))


def over(row: Row, beside: Mapping[str, Beside]) -> float | None:
    """How many times our time a peer takes."""
    held = beside.get(row["id"])
    return None if held is None else held.ratios.get(timed(row))


def verdict(row: Row, beside: Mapping[str, Beside]) -> str:
    """In words, from our side."""
    if row.get("ours"):
        return "ours, the unit" if row["id"] in {held.to for held in beside.values()} else "ours"
    if value(row, timed(row)) is None:
        return "not measured"
    ratio = over(row, beside)
    if ratio is None:
        return DASH
    return f"ours {words.times(ratio)} faster" if ratio >= 1 else f"ours {words.times(1 / ratio)} slower"


def table(rows: list[Row], suite: Suite, caption: str) -> Table:
    """Measured rows and those with a reason."""
    columns = (
        "",
        "beside ours",
        "server",
        "a query",
        "client",
        "up",
        "down",
        "keys, once",
        "bytes / ours",
        "keys / ours",
    )
    found = Table(caption, (*columns, "model private", "same label", "max error", "version, note"))
    beside = besides(rows, suite)
    for workload, held in grouped(rows, "workload").items():
        found.heading(workload_of(workload, held))
        for row in held:
            security, error, agree = row.get("security"), value(row, "max_logit_error"), value(row, "agreement")
            ratios = beside[row["id"]].ratios if row["id"] in beside else {}
            found.row(
                called(row),
                verdict(row, beside),
                *(_time(row, name) for name in ("server_ms", "call_ms", "client_ms")),
                *(DASH if (x := value(row, name)) is None else words.size(x) for name in SIZES),
                *(words.times(ratios[name]) if name in ratios else DASH for name in ("bytes", "key_bytes")),
                DASH if not security else "yes" if security.get("model_private") else "no",
                DASH if agree is None else words.percent(agree),
                DASH if error is None else words.error(error),
                notes(row) if _alike(held) else f"{row.get('shape', '')}; {notes(row)}",
            )
    return found.without_empty(DASH)


def _time(row: Row, name: str) -> str:
    """Of a query, or of a record in a batch."""
    one, each = value(row, name), value(row, f"{name}_a_record")
    if one is not None:
        return words.ms(one)
    return DASH if each is None else f"{words.ms(each)} a record"


def workload_of(workload: str, held: list[Row]) -> str:
    """With the shape that all have; else it is in their notes."""
    return f"{workload}: {held[0]['shape']}" if _alike(held) else workload


def _alike(held: list[Row]) -> bool:
    return len({row.get("shape") for row in held}) == 1 and bool(held[0].get("shape"))


def notes(row: Row) -> str:
    """Version, parameters, licence, why there is no figure, when it was read if not now."""
    dated = f"of {row['dated']}" if row.get("dated") else ""
    published = "published, not measured here" if row.get("published") else ""
    parts = [row.get("version"), row.get("parameters"), published, dated, row.get("note"), row.get("reason")]
    return "; ".join(str(part) for part in parts if part) or DASH


def chart(rows: list[Row], measured: list[Row], suite: Suite, name: str, title: str) -> Chart:
    beside = besides(rows, suite)

    def draw(narrow: bool) -> Figure:
        from secure_infer_benchmarks.report import drawing, scales

        layout = drawing.Rows(narrow, legend=1, under="milliseconds, logarithmic")
        groups = (
            (workload_of(workload, held), sorted(held, key=lambda row: value(row, timed(row)) or 0.0))
            for workload, held in grouped(measured, "workload").items()
        )
        at = layout.grouped(groups, called)
        figure, axes = layout.figure()
        everything: list[float] = []
        for row, y in at:
            x, ends = value(row, timed(row)) or 0.0, spread(row, timed(row))
            marker, colour = ("o", LIGHT["blue"]) if row.get("ours") else ("s", LIGHT["vermillion"])
            hidden = bool((row.get("security") or {}).get("model_private"))
            drawing.point(axes, x, y, marker, colour, hollow=not hidden, spread=ends)
            ratio = over(row, beside)
            told = words.ms(x) + (f", {words.times(ratio)}" if ratio is not None else "")
            drawing.beside(axes, (ends or (x, x))[1], y, told, 9, bold=bool(row.get("ours")))
            everything += [x, *(ends or ())]
        scales.log(axes, everything, words.tick, room=1.0 if narrow else 0.5, most=4 if narrow else 6)
        keys = [
            drawing.Key("ours", "o", LIGHT["blue"]),
            drawing.Key("others", "s", LIGHT["vermillion"]),
            drawing.Key("hollow: no model privacy", "s", LIGHT["vermillion"], hollow=True),
        ]
        drawing.legend(figure, keys, 3)
        return figure

    description = (
        "Time of the server for one query (of the whole query, where it is by secret sharing), one thread each. Beside other "
        "software: how many times our row that it is held against. Hollow: the key holder learns of the weights. Lines: the "
        "middle half of the repeats."
    )
    return Chart(name, title, description, table(rows, suite, title), draw)


def score(rows: list[Row], suite: Suite) -> tuple[list[float], list[tuple[str, float]]]:
    """(how many times our time each measured peer takes, those that are faster than ours and by how much)."""
    beside = besides(rows, suite)
    found = [(row, ratio) for row in rows if (ratio := over(row, beside)) is not None]
    return [ratio for _, ratio in found], [(called(row), 1 / ratio) for row, ratio in found if ratio < 1]
