"""`secure-infer record`: reads a client's own record. `show` prints its entries, `verify` checks that none was changed, moved
or taken out, `export` prints them as JSON lines or writes them to a file, in the clear."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from secure_infer.errors import SettingsError
from secure_infer_client.commands import connection, recording
from secure_infer_client.record import View, read


def run(arguments: list[str]) -> int:
    """Returns 0, or 1 for a record that does not hold together."""
    parser = argparse.ArgumentParser("secure-infer record", description=__doc__)
    parser.add_argument("action", choices=["show", "verify", "export"])
    parser.add_argument("file", type=Path, metavar="FILE", help="the record; a client may be writing to it")
    parser.add_argument("--id", metavar="ID", help="show, export: entries of the row with this id alone")
    parser.add_argument(
        "--since", metavar="TIME", help="show, export: first time, as 2026-11-22 or 2026-11-22T08:30:00Z"
    )
    parser.add_argument("--until", metavar="TIME", help="show, export: time before which entries are")
    parser.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="SEQUENCE:HASH",
        help="a position that was kept elsewhere; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="F", help="export: write there; the file is not encrypted")
    parser.add_argument("--json", action="store_true", help="print JSON: one object; export prints JSON lines anyway")
    recording.add_key_options(parser)
    options = parser.parse_args(arguments)
    if options.out is not None and options.action != "export":
        raise SettingsError("--out: it goes with export")
    with read(options.file, recording.key(options), options.anchor) as (view, entries):
        chosen = (entry for entry in entries if _chosen(view, entry, options))
        if options.action == "export":
            with _output(options.out) as out:
                for entry in chosen:
                    out.write(json.dumps(entry, ensure_ascii=False) + "\n")
            _remarks(view)
        elif options.action == "show" and not options.json:
            for entry in chosen:
                connection.show([_line(entry)])
            _remarks(view)
        else:
            found = list(chosen) if options.action == "show" else [None for _ in entries]
            _verdict(view, found if options.action == "show" else None, as_json=options.json)
    return 1 if view.problems else 0


def _chosen(view: View, entry: dict[str, Any], options: argparse.Namespace) -> bool:
    time = str(entry.get("time", ""))
    return (
        (options.id is None or view.holds_id(entry, options.id))
        and (options.since is None or time >= options.since)
        and (options.until is None or time < options.until)
    )


def _verdict(view: View, entries: list[Any] | None, *, as_json: bool) -> None:
    if as_json:
        found = {
            "entries": view.entries,
            "position": view.position,
            "torn_bytes": view.torn,
            "problems": view.problems,
        }
        connection.show([json.dumps(found if entries is None else {**found, "shown": entries}, ensure_ascii=False)])
        return
    verdict = "DOES NOT HOLD" if view.problems else "holds"
    lines = [f"{verdict}: {view.entries} entries; keep the position of the last elsewhere: {view.position}"]
    connection.show([*lines, *_notes(view)])


def _remarks(view: View) -> None:
    for line in _notes(view):
        sys.stderr.write(f"secure-infer record: {line}\n")


def _notes(view: View) -> list[str]:
    torn = f"note: the last {view.torn} bytes are of an entry that was not finished; it is dropped by the next writer"
    return [*(f"problem: {problem}" for problem in view.problems), *([torn] if view.torn else [])]


def _line(entry: dict[str, Any]) -> str:
    when = f"{entry['sequence']:>6}  {entry['time']}  {entry['operator']}"
    if entry["kind"] != "call":
        return f"{when}  {entry['kind']}: {entry.get('bytes')} bytes of an unfinished entry were dropped"
    digest = (entry["model_digest"] or "–")[:12]
    ids = len(entry.get("ids") or entry.get("id_hashes") or ())
    told = "; ".join(filter(None, [f"{ids} ids" if ids else None, entry.get("task")]))
    return (
        f"{when}  {entry['call']} of {entry['rows']} rows{f' ({told})' if told else ''} by {entry['model']} "
        f"{digest} at {' and '.join(entry['targets'])}: {entry['outcome']}"
    )


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="")
    except FileExistsError:
        raise SettingsError(f"--out: {path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise SettingsError(f"--out: {path} cannot be written ({error.strerror})") from error
    with file:
        yield file
