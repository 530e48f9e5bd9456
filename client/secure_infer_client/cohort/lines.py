"""CSV and JSON Lines, read a record at a time from any byte on; what does not parse is a rejected row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from secure_infer.errors import SettingsError
from secure_infer_client.cohort.rows import LONGEST_TEXT, Columns, Place, Rejected, Row

LONGEST_LINE = 8 << 20
"""Bytes."""

DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")


class _TooLong(Exception):
    """A line that is not taken into memory; it was skipped."""


class _Lines:
    """Decoded lines from where `file` stands, counted. Bytes outside the encoding become lone surrogates, which `Columns`
    rejects, so that one row is lost to them and not the file."""

    def __init__(self, file: BinaryIO, encoding: str, place: Place) -> None:
        self._file, self._encoding = file, encoding
        self.at, self.line = place.at, place.line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        data = self._file.readline(LONGEST_LINE)
        if not data:
            raise StopIteration
        self.line += 1
        first = self.at == 0
        self.at += len(data)
        if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
            while (more := self._file.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                self.at += len(more)
            self.at += len(more)
            raise _TooLong
        if first and data.startswith(_BOM):
            data = data[len(_BOM) :]
        return data.decode(self._encoding, "surrogateescape")


class LineSource:
    """What both have in common. whole: bytes of the file."""

    unit = "B"

    def __init__(self, path: Path, columns: Columns, encoding: str) -> None:
        """Raises SettingsError for a file that cannot be read or is in another encoding."""
        self._path, self._columns, self._encoding = path, columns, encoding
        try:
            if '\n,";'.encode(encoding) != b'\n,";':
                raise SettingsError(f"--encoding: {encoding} is not written as ASCII is; convert the file to UTF-8")
            "".encode(encoding, "surrogateescape")
        except LookupError:
            raise SettingsError(f"--encoding: no encoding {encoding!r}; one of utf-8, cp1252, latin-1, ...") from None
        try:
            self.whole = path.stat().st_size
            with path.open("rb") as file:
                if file.read(2) in _WIDE:
                    raise SettingsError(f"{path.name}: is UTF-16; convert it to UTF-8")
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error


class JsonLines(LineSource):
    """One JSON object a line; empty lines are no rows."""

    def read(self, place: Place) -> Iterator[tuple[Row | Rejected, Place]]:
        with self._path.open("rb") as file:
            file.seek(place.at)
            lines, number = _Lines(file, self._encoding, place), place.number
            while True:
                found: Row | Rejected
                try:
                    line = next(lines)
                    if not line.strip():
                        continue
                    number += 1
                    found = self._row(number, line, lines.line)
                except StopIteration:
                    return
                except _TooLong:
                    number += 1
                    found = Rejected(number, f"a line of more than {LONGEST_LINE} bytes", lines.line)
                yield found, Place(number, lines.at, lines.line)

    def _row(self, number: int, text: str, line: int) -> Row | Rejected:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return Rejected(number, "not JSON", line)
        if not isinstance(values, dict):
            return Rejected(number, "not a JSON object", line)
        return self._columns.row(number, values, line)


class Csv(LineSource):
    """CSV under a header, quoted as RFC 4180 says. delimiter: None takes the one under which the header has the columns."""

    def __init__(self, path: Path, columns: Columns, encoding: str, delimiter: str | None = None) -> None:
        super().__init__(path, columns, encoding)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise SettingsError("--delimiter: expected one character, or 'tab'")
        csv.field_size_limit(LONGEST_TEXT + 1)
        for one in DELIMITERS if delimiter is None else delimiter:
            self._names, self._first = self._header(one)
            self.delimiter = one
            if set(columns.names) <= set(self._names):
                break
        else:
            self._names, self._first = self._header(delimiter or DELIMITERS[0])
        columns.missing_in(self._names, path.name)

    def _header(self, delimiter: str) -> tuple[list[str], Place]:
        with self._path.open("rb") as file:
            lines = _Lines(file, self._encoding, Place())
            try:
                names = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
            except (csv.Error, _TooLong):
                names = []
            return names, Place(0, lines.at, lines.line)

    def read(self, place: Place) -> Iterator[tuple[Row | Rejected, Place]]:
        place = place if place.at else self._first
        with self._path.open("rb") as file:
            file.seek(place.at)
            lines, number = _Lines(file, self._encoding, place), place.number
            records = csv.reader(lines, delimiter=self.delimiter, strict=True)
            while True:
                before = lines.line
                found: Row | Rejected
                try:
                    fields = next(records)
                    if not fields and len(self._names) > 1:
                        continue  # an empty line; in a file of one column it is an empty field
                    number += 1
                    found = self._row(number, fields or [""], before + 1, lines.line - before)
                except StopIteration:
                    return
                except csv.Error as error:
                    number += 1
                    found = Rejected(number, f"not CSV ({error})", before + 1, lines.line - before)
                except _TooLong:
                    number += 1
                    reason = f"a line of more than {LONGEST_LINE} bytes"
                    found = Rejected(number, reason, before + 1, lines.line - before)
                yield found, Place(number, lines.at, lines.line)

    def _row(self, number: int, fields: list[str], line: int, lines: int) -> Row | Rejected:
        if len(fields) != len(self._names):
            return Rejected(number, f"expected {len(self._names)} fields, got {len(fields)}", line, lines)
        return self._columns.row(number, dict(zip(self._names, fields, strict=True)), line, lines)
