"""What comes out of an input file: rows, rejected rows, and the place behind each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from secure_infer.errors import SettingsError

LONGEST_TEXT = 1 << 20
"""Characters of one text; a book of 300 pages has fewer."""


@dataclass(frozen=True, slots=True)
class Row:
    """number: from 1, over all rows, rejected ones too. given: a text, or features."""

    number: int
    id: str | None
    given: str | list[float]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not scored. reason: without anything of its content. line, lines: where it is in a file of lines."""

    number: int
    reason: str
    line: int | None = None
    lines: int = 1

    def to_json(self) -> str:
        where = {} if self.line is None else {"line": self.line}
        several = {"lines": self.lines} if self.lines > 1 else {}
        return json.dumps({"row": self.number, **where, **several, "reason": self.reason})


@dataclass(frozen=True, slots=True)
class Place:
    """Behind a row, where reading goes on. number: rows before it. at: bytes of a file of lines, rows of a table. line: lines
    before it."""

    number: int = 0
    at: int = 0
    line: int = 0


class Source(Protocol):
    """An input file. whole: the `Place.at` behind its last row; unit: of that, "B" or "rows"."""

    @property
    def whole(self) -> int: ...
    @property
    def unit(self) -> str: ...

    def read(self, place: Place) -> Iterator[tuple[Row | Rejected, Place]]:
        """Each row from `place` on, and the place behind it."""


@dataclass(frozen=True)
class Columns:
    """Which columns are read: `text`, or `features` (a number each), or `embedding` (a list of numbers); `id` of the rows."""

    text: str | None = None
    features: tuple[str, ...] = ()
    embedding: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.text, self.features, self.embedding))) != 1:
            raise SettingsError("columns: expected one of --text-column, --features-columns and --embedding-column")

    @property
    def names(self) -> list[str]:
        """All that is read."""
        return [n for n in (self.id, self.text, *self.features, self.embedding) if n is not None]

    def missing_in(self, names: list[str], path: str) -> None:
        """Raise SettingsError unless each is there once."""
        for name in self.names:
            if names.count(name) != 1:
                found = f"{names.count(name)} columns" if name in names else "no column"
                raise SettingsError(f"{path}: {found} {name!r}; it has {', '.join(names[:20])}")

    def row(self, number: int, values: Mapping[str, Any], line: int | None = None, lines: int = 1) -> Row | Rejected:
        """The row of these values. None, and an id or a text that is empty, are missing values."""
        try:
            identity = None if self.id is None else _identity(self.id, values.get(self.id))
            return Row(number, identity, self._given(values))
        except ValueError as error:
            return Rejected(number, str(error), line, lines)

    def _given(self, values: Mapping[str, Any]) -> str | list[float]:
        if self.text is not None:
            return _text(self.text, values.get(self.text))
        if self.embedding is None:
            return [_number(name, values.get(name)) for name in self.features]
        given = values.get(self.embedding)
        if isinstance(given, str):  # as a list has to be written in CSV
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                given = None
        if not isinstance(given, list) or not given:
            raise ValueError(f"{self.embedding}: expected a list of numbers")
        return [_number(self.embedding, one) for one in given]


def _identity(name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    found = _text(name, value)
    if len(found) > 1000:
        raise ValueError(f"{name}: an id of {len(found)} characters; expected at most 1000")
    return found


def _text(name: str, value: Any) -> str:
    if value is None:
        raise ValueError(f"{name}: no value")
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name}: empty")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"{name}: {len(value)} characters; expected at most {LONGEST_TEXT}")
    try:
        value.encode()  # lone surrogates do not
    except UnicodeEncodeError:
        raise ValueError(f"{name}: bytes that are not in the file's encoding") from None
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name}: expected a number, got {'no value' if value is None else type(value).__name__}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number") from None
