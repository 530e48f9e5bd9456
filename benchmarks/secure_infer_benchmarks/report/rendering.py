"""Drawings as bytes: the same figure is the same bytes."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from secure_infer_benchmarks.report.colours import LIGHT
from secure_infer_benchmarks.report.drawing import style


def svg(figure: Figure) -> bytes:
    """Without a date, so that the same figure is the same bytes."""
    with style():
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return held.getvalue()


def png(figure: Figure) -> bytes:
    """At twice the size, on white: a README has no dark side."""
    with style():
        held = io.BytesIO()
        figure.savefig(
            held,
            format="png",
            dpi=144,
            facecolor=LIGHT["card"],
            metadata={"Software": None},
            bbox_inches="tight",
            pad_inches=0.14,
        )
    return held.getvalue()
