"""Entries for people and other programs: JSON lines as they are, or CSV of what calls say."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from secure_infer.errors import SettingsError
from secure_infer_server.audit.event import FIELDS
from secure_infer_server.audit.walk import lines, segments_of

COLUMNS = ("sequence", "time", "kind", *FIELDS, "previous", "hash")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Selection:
    """Entries from `since` on and before `until`, of one caller; None: of all."""

    since: datetime | None = None
    until: datetime | None = None
    who: str | None = None

    def holds(self, entry: dict[str, Any]) -> bool:
        if self.who is not None and entry.get("who") != self.who:
            return False
        if self.since is None and self.until is None:
            return True
        try:
            when = moment(str(entry["time"]))
        except (KeyError, SettingsError):
            return False
        return (self.since is None or when >= self.since) and (self.until is None or when < self.until)


def moment(text: str) -> datetime:
    """A date, or date and time, of ISO 8601; UTC where it names no zone. Raises SettingsError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"time: expected like 2026-11-22 or 2026-11-22T08:30:00Z, got {text[:40]!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def selected(directory: Path, selection: Selection, faults: list[str]) -> Iterator[dict[str, Any]]:
    """Entries with all their members; lines that do not hold are left out and named in `faults`. Raises SettingsError."""
    for line in lines(segments_of(directory)):
        entry = line.entry
        if entry is None or not entry.whole:
            if not line.torn:
                faults.append(f"line {line.number} of segment {line.segment} was changed, or is no entry")
            continue
        members = {"sequence": entry.sequence, "time": entry.fields.get("time"), "kind": entry.kind, **entry.fields}
        if selection.holds(members):
            yield members | {"previous": entry.previous, "hash": entry.hash}


def write_jsonl(entries: Iterator[dict[str, Any]], out: TextIO) -> None:
    for entry in entries:
        out.write(json.dumps(entry, separators=(",", ":")) + "\n")


def write_csv(entries: Iterator[dict[str, Any]], out: TextIO) -> None:
    """One column a field. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    table = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for entry in entries:
        table.writerow({name: _cell(value) for name, value in entry.items()})


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
