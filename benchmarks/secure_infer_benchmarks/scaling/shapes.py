"""Shapes along the axes of the suite `scaling`, their synthetic heads, and rows of its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from secure_infer.heads import Head
from secure_infer_benchmarks.figures import Figure, Row
from secure_infer_benchmarks.synthetic import square_head

Shape = tuple[int, int, int]
"""Features d, hidden units h, classes K."""
BASE: Shape = (384, 64, 10)


@dataclass(frozen=True)
class Shapes:
    """Values of each axis; the other two are the base's."""

    d: tuple[int, ...] = (96, 384, 768, 1536)
    h: tuple[int, ...] = (16, 64, 256, 512)
    k: tuple[int, ...] = (2, 10, 21, 100)

    def points(self) -> Iterator[tuple[str, int, Shape]]:
        """(axis, value, shape) of every row."""
        d, h, k = BASE
        yield from (("d", value, (value, h, k)) for value in self.d)
        yield from (("h", value, (d, value, k)) for value in self.h)
        yield from (("K", value, (d, h, value)) for value in self.k)

    def all(self) -> list[Shape]:
        """Each shape once: the base is on every axis."""
        return list(dict.fromkeys(shape for _, _, shape in self.points()))


FULL = Shapes()


def words(shape: Shape) -> str:
    """For example 384 -> 64 -> 10."""
    return " -> ".join(map(str, shape))


@cache
def head(shape: Shape) -> Head:
    """A seeded synthetic head with a hidden layer of squares."""
    return square_head(*shape)


def name(shape: Shape) -> str:
    """As it is served."""
    return f"square-{'-'.join(map(str, shape))}"


def save(directory: Path, shapes: Iterable[Shape]) -> None:
    """The heads' files, to be served."""
    for shape in shapes:
        head(shape).save(directory / f"{name(shape)}.head")


def row(
    axis: str,
    value: int,
    scheme: str,
    plan: str,
    figures: Mapping[str, Figure],
    counts: Mapping[str, Any],
    *,
    predicts: tuple[str, float] | None = None,
    shape: Shape | None = None,
) -> Row:
    """A row. predicts: which of its figures the planner predicts, and what; milliseconds are `predicted_ms` in its counts.
    shape: the base's where none is given."""
    found: Row = {
        "id": f"{axis}={value}/{scheme}",
        "axis": axis,
        "value": value,
        "scheme": scheme,
        "shape": words(shape or BASE),
        "plan": plan,
        "figures": dict(figures),
        "counts": dict(counts),
    }
    if predicts is not None:
        name_of, predicted = predicts
        key = "predicted_ms" if name_of.endswith("_ms") else f"predicted_{name_of}"
        found["predicts"] = name_of
        found["counts"] |= {key: predicted, "measured_to_predicted": figures[name_of]["median"] / predicted}
    return found
