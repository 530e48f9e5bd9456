"""Axes with few, round ticks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from secure_infer_benchmarks.report import words


def linear(axes: Axes, most: float, told: Callable[[float], str] = words.tick) -> None:
    """An x axis from 0."""
    axes.set_xlim(0, most)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))


def log(
    axes: Axes,
    values: Sequence[float],
    told: Callable[[float], str],
    *,
    which: str = "x",
    room: float = 0.0,
    most: int = 6,
) -> None:
    """A logarithmic axis around positive values, with so many ticks at most. room: decades kept free above, for words."""
    values = [value for value in values if value > 0] or [1.0]
    low, high = min(values) / 1.35, max(values) * 1.35 * 10**room
    if high < 5 * low:  # room for two ticks at least
        low, high = low / 1.6, high * 1.6
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator(ticks(low, high, most)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """
    >>> ticks(0.9, 60)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
    >>> ticks(1.5, 7e6)
    [10.0, 100.0, 1000.0, 10000.0, 100000.0, 1000000.0]
    """
    found: list[float] = []
    for subs, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        found = [float(f"{sub}e{power}") for power in range(-12, 15, step) for sub in subs]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            break
    return found
