"""`secure-infer audit`: checks an audit log, and exports it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from secure_infer.errors import SettingsError
from secure_infer_server.admission import UNAUTHENTICATED
from secure_infer_server.audit import export, files, walk
from secure_infer_server.audit.export import Selection, moment
from secure_infer_server.audit.signing import Verifier
from secure_infer_server.audit.verify import Report, verify
from secure_infer_server.callers.policy import KINDS, is_identity

_ANCHOR = re.compile(r"(\d{1,16}):([0-9a-f]{64})")


def run(arguments: list[str]) -> int:
    """Returns 0, or 1 for a log that does not hold together."""
    options = _parser().parse_args(arguments)
    return _verify(options) if options.action == "verify" else _export(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer audit", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser("verify", help="find entries that were changed, removed, inserted, moved or cut off")
    check.add_argument("directory", type=Path, metavar="DIR", help="the log's directory; the server may be running")
    check.add_argument(
        "--public-key",
        type=Path,
        action="append",
        metavar="F",
        help="public key that signed, PEM, from where the log's writer cannot change it; repeatable; default: the one in DIR",
    )
    check.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="SEQUENCE:HASH",
        help="a checkpoint that was kept elsewhere, as the server's log lines say it; repeatable",
    )
    check.add_argument("--first-segment", type=int, default=1, metavar="N", help="earlier ones are archived elsewhere")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    out = actions.add_parser("export", help="entries as JSON lines or CSV, or the public key")
    out.add_argument("directory", type=Path, metavar="DIR", help="the log's directory")
    out.add_argument("--since", metavar="TIME", help="first time, as 2026-11-22 or 2026-11-22T08:30:00Z; UTC")
    out.add_argument("--until", metavar="TIME", help="time before which entries are")
    out.add_argument("--who", metavar="IDENTITY", help="entries of one caller")
    out.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="default jsonl")
    out.add_argument("--out", type=Path, metavar="F", help="write there and not to standard output")
    out.add_argument("--public-key", action="store_true", help="print the public keys, PEM, and nothing else")
    out.add_argument(
        "--json", action="store_true", help="JSON lines are the default; accepted so that every command takes it"
    )
    return parser


def _verify(options: argparse.Namespace) -> int:
    anchors = []
    for text in options.anchor:
        anchor = _ANCHOR.fullmatch(text)
        if anchor is None:
            raise SettingsError(f"--anchor: expected SEQUENCE:HASH, the hash 64 hex digits, got {text[:100]!r}")
        anchors.append((int(anchor[1]), anchor[2]))
    if options.first_segment < 1:
        raise SettingsError(f"--first-segment: expected at least 1, got {options.first_segment}")
    walk.segments_of(options.directory)  # where there is no log, its key is not what is missing
    keys = options.public_key or [options.directory / files.PUBLIC]
    report = verify(options.directory, Verifier.of(keys), first_segment=options.first_segment, anchors=anchors)
    if not options.public_key:
        report.notes.append(
            f"the public key is the log's own ({files.PUBLIC}); whoever can write there could have signed anew: "
            "keep a copy elsewhere and give it with --public-key"
        )
    sys.stdout.write(json.dumps(report.to_json()) + "\n" if options.json else _text(report))
    return 0 if report.ok else 1


def _text(report: Report) -> str:
    verdict = "holds" if report.ok else "DOES NOT HOLD"
    lines = [
        f"{verdict}: {report.entries} entries, {report.checkpoints} signed checkpoints, the last entry is "
        f"{report.sequence}:{report.hash}"
    ]
    for problem in report.problems:
        at = f" (segment {problem['segment']}, line {problem['line']})" if "segment" in problem else ""
        lines.append(f"problem: {problem['problem']}{at}")
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)]) + "\n"


def _export(options: argparse.Namespace) -> int:
    # All that can be wrong comes before a file is made.
    since, until = (None if text is None else moment(text) for text in (options.since, options.until))
    selection, faults = Selection(since, until, _who(options.who)), list[str]()
    walk.segments_of(options.directory)
    if options.public_key:
        Verifier.of([options.directory / files.PUBLIC])
    with _output(options.out) as out:
        if options.public_key:
            out.write((options.directory / files.PUBLIC).read_text("ascii"))
            return 0
        entries = export.selected(options.directory, selection, faults)
        (export.write_csv if options.format == "csv" else export.write_jsonl)(entries, out)
    for fault in faults[:20]:
        sys.stderr.write(f"secure-infer audit: {fault}; left out\n")
    return 1 if faults else 0


def _who(text: str | None) -> str | None:
    """As entries have them: "ward-7" for "cn:ward-7" would find nothing, and say nothing."""
    if text is not None and not is_identity(text) and text != UNAUTHENTICATED:
        raise SettingsError(
            f"--who: expected an identity that begins with {', '.join(KINDS)}, or {UNAUTHENTICATED!r}, got {text[:80]!r}"
        )
    return text


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """A new file, for its owner alone: it says who asked what."""
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
    except FileExistsError:
        raise SettingsError(f"--out: {path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise SettingsError(f"--out: {path} cannot be written ({error.strerror})") from error
    with file:
        yield file
