"""Reads a log's segments line by line, in order, also while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from secure_infer.errors import SettingsError
from secure_infer_server.audit import chain, files
from secure_infer_server.audit.chain import Entry


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line stands, and the entry it holds: None for one that holds none. torn: without its end, as a crash leaves it, or
    a write under way."""

    segment: int
    number: int
    entry: Entry | None
    torn: bool


def segments_of(directory: Path) -> list[tuple[int, Path]]:
    """(number, file) of a log's segments; raises SettingsError where there is no log."""
    if not directory.is_dir():
        raise SettingsError(f"audit log: {directory} is not a directory")
    found = files.segments(directory)
    if not found:
        raise SettingsError(f"audit log: {directory} holds no audit-*.jsonl")
    return found


def lines(segments: list[tuple[int, Path]]) -> Iterator[Line]:
    """All lines, with a progress bar on a terminal."""
    size = sum(path.stat().st_size for _, path in segments)
    with tqdm(total=size, desc="reading", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for segment, path in segments:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    whole = line.endswith(b"\n")
                    yield Line(segment, number, chain.read(line[:-1]) if whole else None, not whole)
                    bar.update(len(line))
