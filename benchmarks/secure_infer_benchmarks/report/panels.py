"""Small charts side by side, and points with numbers and a key."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from secure_infer_benchmarks.report.drawing import NARROW, SMALL, TEXT, WIDE


def below(axes: Axes, x: float, y: float, text: str) -> None:
    """A point's number, left under it: frontiers pass above and to the right."""
    axes.annotate(text, (x, y), (-5, -13), textcoords="offset points", ha="right", fontsize=SMALL)


def side_by_side(
    narrow: bool, titles: Sequence[str], height: float, across: int, legend: int = 1
) -> tuple[Figure, list[Axes]]:
    """Small charts side by side, or below each other on a phone. height: of one, in points, with its title and axis."""
    columns = 1 if narrow else across
    down = -(-len(titles) // columns)
    width, above = NARROW if narrow else WIDE, 8 + 19 * legend
    total = above + down * height
    figure = Figure(figsize=(width / 72, total / 72))
    found = []
    for at, title in enumerate(titles):
        column, line = at % columns, at // columns
        step = width / columns
        box = (column * step + 44, total - above - (line + 1) * height + 46, step - 44 - 16, height - 46 - 26)
        axes = figure.add_axes((box[0] / width, box[1] / total, box[2] / width, box[3] / total))
        axes.grid(True)
        axes.set_title(title, loc="left", fontsize=TEXT, fontweight="bold", x=-32 / box[2], pad=9)
        found.append(axes)
    return figure, found


def key_beside(figure: Figure, axes: Axes, lines: Sequence[str]) -> None:
    """Make room right of a panel, and write there: the key to numbered points."""
    place = axes.get_position()
    axes.set_position((place.x0, place.y0, place.width * 0.58, place.height))
    height = figure.get_figheight() * 72
    for at, line in enumerate(lines):
        figure.text(place.x0 + place.width * 0.61, place.y1 - (8 + 20 * at) / height, line, va="center")
