"""What a chart is: its words and its numbers first, the drawing last and only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secure_infer_benchmarks.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """name: of its file. title: what is shown. description: how it is read. draw: takes whether it is for a phone."""

    name: str
    title: str
    description: str
    table: Table
    draw: Callable[[bool], Figure]
