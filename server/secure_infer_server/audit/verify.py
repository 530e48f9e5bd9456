"""Checks a log against its chain, its checkpoints and its head.

What is found: an entry that was changed, removed, inserted or moved; a missing segment; entries cut off that the head, or
a checkpoint kept elsewhere, had signed; a chain written anew without the key. What is not: entries changed or cut off after
the last checkpoint, and a directory put back, head included, to an earlier state, unless a checkpoint was kept elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from secure_infer_server.audit import chain, files, signing
from secure_infer_server.audit.chain import Entry
from secure_infer_server.audit.signing import Verifier
from secure_infer_server.audit.walk import Line, lines, segments_of

MOST_PROBLEMS = 20


@dataclass
class Report:
    """problems: what is wrong, where; empty for a log that holds. notes: what a reader should know besides.

    entries: read. signed: of them, up to the last good checkpoint. hash: of the last entry.
    """

    problems: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entries: int = 0
    checkpoints: int = 0
    signed: int = 0
    sequence: int = 0
    hash: str = chain.START
    log: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        names = ("ok", "log", "entries", "checkpoints", "sequence", "hash", "signed", "problems", "notes")
        return {name: getattr(self, name) for name in names}

    def add(self, problem: str, entry: int | None = None, line: Line | None = None) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            where = {} if line is None else {"segment": line.segment, "line": line.number}
            self.problems.append({"problem": problem, "entry": entry} | where)


def verify(
    directory: Path, verifier: Verifier, *, first_segment: int = 1, anchors: Sequence[tuple[int, str]] = ()
) -> Report:
    """The report on a log. first_segment: with which it begins, where earlier ones are archived elsewhere. anchors: (sequence,
    hash) of checkpoints that were kept elsewhere. Raises SettingsError where there is no log."""
    report, expected = Report(), dict(anchors)
    head = files.read_head(directory)  # first: a server may be writing, and what comes meanwhile is beyond it
    found = segments_of(directory)
    _check_segments(report, [number for number, _ in found], first_segment)
    if head is not None:
        expected.setdefault(head["sequence"], head["hash"])
    missing = dict(expected)
    for line in lines(found):
        entry = line.entry
        if entry is None:
            if line.torn and line.segment == found[-1][0]:
                report.notes.append("the last line is not whole: a crash, or a write under way")
            else:
                report.add(f"line {line.number} of segment {line.segment} is no entry", report.sequence + 1, line)
            continue
        _check_entry(report, entry, line, first_segment)
        if entry.kind == chain.CHECKPOINT:
            _check_checkpoint(report, entry, line, verifier)
        elif entry.kind == chain.RECOVERED:
            _check_torn(report, entry, directory)
        if missing.pop(entry.sequence, entry.hash) != entry.hash:
            report.add(
                f"entry {entry.sequence} is another than the one that was signed or kept elsewhere",
                entry.sequence,
                line,
            )
    _check_head(report, head, verifier)
    for sequence in sorted(missing):
        if sequence > report.sequence:
            report.add(
                f"the log ends at entry {report.sequence}, but {sequence} were signed: the rest was cut off", sequence
            )
        elif first_segment == 1:
            report.add(f"entry {sequence}, which was signed or kept elsewhere, is missing", sequence)
    if report.signed < report.sequence:
        report.notes.append(f"entries {report.signed + 1} to {report.sequence} are not covered by a checkpoint yet")
    return report


def _check_segments(report: Report, numbers: list[int], first: int) -> None:
    if numbers[0] != first:
        report.add(f"segment {first} is missing: the log begins with segment {numbers[0]}")
    for before, after in pairwise(numbers):
        if after != before + 1:
            gone = f"segment {before + 1} is" if after == before + 2 else f"segments {before + 1} to {after - 1} are"
            report.add(f"{gone} missing")


def _check_entry(report: Report, entry: Entry, line: Line, first_segment: int) -> None:
    expected = report.sequence + 1
    begins = not report.entries
    if not entry.whole:
        report.add(f"entry {entry.sequence} was changed: its hash does not fit it", entry.sequence, line)
    elif begins and first_segment > 1:
        pass  # what came before is elsewhere
    elif entry.sequence > expected:
        gone = (
            f"entry {expected} is"
            if entry.sequence == expected + 1
            else f"entries {expected} to {entry.sequence - 1} are"
        )
        report.add(f"{gone} missing", expected, line)
    elif entry.sequence < expected:
        report.add(
            f"entry {entry.sequence} stands after entry {report.sequence}: moved or inserted", entry.sequence, line
        )
    elif entry.previous != report.hash:
        report.add(
            f"entry {entry.sequence} does not follow from the one before: one of them was inserted or written anew",
            entry.sequence,
            line,
        )
    report.entries += 1
    report.sequence, report.hash = entry.sequence, entry.hash


def _check_checkpoint(report: Report, entry: Entry, line: Line, verifier: Verifier) -> None:
    said = entry.fields
    report.log = report.log or str(said.get("log"))
    good = verifier.verify(
        said.get("key"), said.get("signature"), signing.CHECKPOINT, report.log, entry.sequence - 1, entry.previous
    )
    if good:
        report.checkpoints, report.signed = report.checkpoints + 1, entry.sequence
    else:
        report.add(
            f"checkpoint {entry.sequence} is not signed by a key that is known: the chain was written anew, or its public "
            "key was not given",
            entry.sequence,
            line,
        )


def _check_torn(report: Report, entry: Entry, directory: Path) -> None:
    name = str(entry.fields.get("file"))
    aside = directory / Path(name).name
    digest = hashlib.sha256(aside.read_bytes()).hexdigest() if aside.is_file() else None
    state = {entry.fields.get("sha256"): "kept", None: "gone"}.get(digest, "changed")
    report.notes.append(
        f"entry {entry.sequence}: a crash left {entry.fields.get('bytes')} bytes of a line, {state} in {name}"
    )


def _check_head(report: Report, head: dict[str, Any] | None, verifier: Verifier) -> None:
    if head is None:
        report.add(f"{files.HEAD} is missing or not readable: whether entries were cut off cannot be told")
        return
    good = verifier.verify(
        head.get("key"), head.get("signature"), signing.HEAD, head.get("log"), head["sequence"], head["hash"]
    )
    if not good or (report.log and head.get("log") != report.log):
        report.add(f"{files.HEAD} is not signed by a key that is known, or is of another log")
