"""How every chart is set: sizes in points, rows with their names beside or above them, axes without a frame.

Charts are drawn in two widths: names stand left of what is drawn, or above it on a phone. A point is a CSS pixel of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from secure_infer_benchmarks.figures import Row
from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.reading import SCHEMES

WIDE, NARROW = 720, 350
TEXT, SMALL = 11.5, 10.5
LONGEST = 44
"""Characters of a row's name."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "secure-infer",
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": SMALL,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}
MARKS = {"ckks": ("o", LIGHT["blue"]), "mpc": ("s", LIGHT["vermillion"]), "plaintext": ("D", LIGHT["grey"])}
"""By scheme: marker and colour."""
OTHER = ("^", LIGHT["green"])


@contextmanager
def style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


@dataclass
class Rows:
    """Rows from top to bottom, some under a heading. Positions are in points from the top of the axes.

    legend: its lines. under: what the x axis is."""

    narrow: bool
    legend: int = 0
    under: str = ""
    height: float = field(default=0, init=False)
    told: list[tuple[str, float, bool]] = field(default_factory=list, init=False)

    @property
    def left(self) -> float:
        """Points that the names take."""
        longest = max((len(name) for name, _, bold in self.told if not bold), default=0)
        return 6 if self.narrow else min(WIDE * 0.45, 24 + 6.6 * longest)

    def heading(self, title: str) -> None:
        """In as many lines as it takes."""
        self.height += 8 if self.told else 0
        for line in wrap(title, 44 if self.narrow else 92):
            self.told.append((line, self.height + 9, True))
            self.height += 17
        self.height += 4

    def row(self, name: str) -> float:
        """The middle of what is drawn for a row of that name, which is cut at `LONGEST`."""
        name = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        if self.narrow:
            self.told.append((name, self.height + 10, False))
            self.height += 40
            return self.height - 13
        self.told.append((name, self.height + 12, False))
        self.height += 24
        return self.height - 12

    def grouped(
        self, groups: Iterable[tuple[str, Iterable[Row]]], name: Callable[[Row], str]
    ) -> list[tuple[Row, float]]:
        """Each group's rows under its heading: every row of the report, and the middle of what is drawn for it."""
        placed = []
        for title, rows in groups:
            self.heading(title)
            placed += [(row, self.row(name(row))) for row in rows]
        return placed

    def figure(self) -> tuple[Figure, Axes]:
        """Axes of that height, y from the top in points; the x axis is the caller's."""
        width = NARROW if self.narrow else WIDE
        above, below = 8 + 19 * self.legend, 46 if self.under else 28
        height = above + self.height + below
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes(
            (self.left / width, below / height, (width - self.left - 14) / width, self.height / height)
        )
        axes.set_ylim(self.height, 0)
        axes.yaxis.set_major_locator(NullLocator())
        axes.grid(not self.narrow, axis="x")  # on a phone the names lie there
        axes.set_xlabel(self.under, loc="left")
        for name, at, bold in self.told:
            indent = 0 if bold or self.narrow else 10
            figure.text(
                indent / width, 1 - (above + at) / height, name, va="center", fontweight="bold" if bold else "normal"
            )
        return figure, axes


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    name: str
    marker: str = "s"
    colour: str = LIGHT["ink"]
    hollow: bool = False
    line: str = "none"


def schemes(rows: Sequence[Row], line: str = "none") -> list[Key]:
    """A key for each scheme that the rows have."""
    there = {row.get("scheme") for row in rows}
    return [Key(SCHEMES[name], *mark, line=line) for name, mark in MARKS.items() if name in there]


def legend(figure: Figure, keys: Sequence[Any], columns: int) -> None:
    """Above the axes, from the figure's left edge; keys are `Key` or matplotlib's own handles."""
    handles = [_handle(key) if isinstance(key, Key) else key for key in keys]
    height = figure.get_figheight() * 72
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 1 - 1 / height),
        ncol=columns,
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.4,
        columnspacing=1.4,
        labelspacing=0.35,
        handlelength=1.6,
    )


def _handle(key: Key) -> Line2D:
    fill = LIGHT["card"] if key.hollow else key.colour
    return Line2D(
        [],
        [],
        marker=key.marker,
        linestyle=key.line,
        color=key.colour,
        markerfacecolor=fill,
        markersize=7,
        label=key.name,
    )


def point(
    axes: Axes,
    x: float,
    y: float,
    marker: str,
    colour: str,
    *,
    hollow: bool = False,
    spread: tuple[float, float] | None = None,
) -> None:
    """A marker, with its quartiles as a line behind it."""
    if spread is not None:
        axes.plot(spread, (y, y), color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
    axes.plot(
        [x],
        [y],
        marker=marker,
        color=colour,
        markersize=8,
        linestyle="none",
        markerfacecolor=LIGHT["card"] if hollow else colour,
        markeredgecolor=colour if hollow else LIGHT["card"],
        markeredgewidth=1.6 if hollow else 0.8,
        zorder=3,
        clip_on=False,
    )


def stacked(axes: Axes, y: float, parts: Sequence[Any]) -> float:
    """One bar of parts (length, colour's name, pattern) from 0; returns where it ends."""
    end = 0.0
    for length, colour, pattern in parts:
        bar = axes.barh(y, length, left=end, height=14, edgecolor=LIGHT["card"], linewidth=0.7)
        bar.patches[0].set(facecolor=LIGHT[colour], hatch=pattern, hatchcolor=LIGHT["card"])
        end += length
    return end


def patch(name: str, colour: str, pattern: str) -> Patch:
    """The entry of such a part in a legend."""
    return Patch(facecolor=LIGHT[colour], hatch=pattern, edgecolor=LIGHT["card"], label=name)


def upright(axes: Axes, x: float, y: float, reach: float = 8) -> None:
    """What a marker is held against: a bound, a prediction, plaintext."""
    axes.plot((x, x), (y - reach, y + reach), color=LIGHT["ink"], linewidth=2.2, solid_capstyle="butt", zorder=2)


def beside(axes: Axes, x: float, y: float, text: str, away: float = 7, *, bold: bool = False) -> None:
    """A value right of what it is of."""
    weight = "bold" if bold else "normal"
    axes.annotate(
        text, (x, y), (away, 0), textcoords="offset points", va="center", fontsize=SMALL, fontweight=weight, zorder=4
    )
