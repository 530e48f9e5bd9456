"""`secure-infer score`: a cohort from file to file, in chunks; run it again after a kill and it goes on where it was."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from secure_infer import address
from secure_infer.ckks.link import Link
from secure_infer.errors import SecureInferError
from secure_infer_client.cohort import Job, Progress, Summary, score
from secure_infer_client.cohort.rows import Columns
from secure_infer_client.commands import connection, recording
from secure_infer_client.text.prepare import POLICIES

EPILOG = """
INPUT and OUT are .csv (or .tsv), .jsonl (or .ndjson) or .parquet by their names; parquet takes the extra `tables`. While it
runs there are OUT.partial, OUT.rejected.partial and OUT.checkpoint; OUT is there when it is complete. Rows that cannot be scored
are listed in OUT.rejected.jsonl, by number and reason.
"""


def run(arguments: list[str]) -> int:
    """Score the cohort; prints a few lines, or one JSON object."""
    options = _parser().parse_args(arguments)
    job = Job(
        input=options.input,
        out=options.out,
        columns=Columns(
            text=options.text_column,
            features=tuple(options.features_columns or ()),
            embedding=options.embedding_column,
            id=options.id_column,
        ),
        encoding=options.encoding,
        delimiter=options.delimiter,
        logits=options.logits,
        remove=not options.keep_identifiers,
        long_text=options.long_text,
        chunk=options.chunk,
        workers=options.embed_workers,
        wait=options.wait,
        restart=options.restart,
    )
    local = all(address.is_loopback(address.parse(target, "--target")[0]) for target in options.target)
    with recording.opened(options) as record, connection.client(options, record=record) as client, _bar() as bar:
        summary = score(
            client,
            job,
            scheme=options.scheme,
            link=Link.parse("loopback" if local else "lan"),
            record=record,
            reached=bar.reached,
            tell=bar.tell,
        )
    _show(summary, job, as_json=options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer score", description=__doc__, epilog=EPILOG)
    parser.add_argument("input", type=Path, metavar="INPUT", help=".csv, .jsonl or .parquet, a row a record")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="answers; .csv, .jsonl or .parquet")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--text-column", metavar="NAME", help="column of texts, which are embedded on this machine")
    given.add_argument(
        "--features-columns", nargs="+", metavar="NAME", help="columns of features, in the model's order"
    )
    given.add_argument("--embedding-column", metavar="NAME", help="column of lists of numbers")
    parser.add_argument("--id-column", metavar="NAME", help="column of ids, which stand beside the answers")
    connection.add_options(parser)
    parser.add_argument("--logits", action="store_true", help="write the logits too")
    parser.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of CSV and JSON Lines (utf-8); cp1252, ..."
    )
    parser.add_argument("--delimiter", metavar="C", help="of CSV: a character, or 'tab'; default: by the header")
    parser.add_argument("--keep-identifiers", action="store_true", help="do not de-identify texts first")
    parser.add_argument("--long-text", choices=POLICIES, default="pool", help="as classify has it (pool)")
    parser.add_argument(
        "--chunk",
        type=int,
        metavar="ROWS",
        help="rows scored together, which a kill loses at most; default: by the plans",
    )
    parser.add_argument("--embed-workers", type=int, default=1, metavar="N", help="embedding processes (1); 0: none")
    parser.add_argument(
        "--wait", type=float, default=600.0, metavar="SECONDS", help="for a server that is away or a budget (600)"
    )
    parser.add_argument(
        "--restart", action="store_true", help="remove what an earlier run wrote, OUT too, and start anew"
    )
    recording.add_options(parser)
    return parser


class _Bar:
    """Progress on stderr where that is a terminal; pauses are told in any case."""

    def __init__(self, bar: tqdm[NoReturn]) -> None:
        self._bar = bar

    def reached(self, progress: Progress) -> None:
        if self._bar.total is None:
            self._bar.total, self._bar.initial, self._bar.unit = progress.whole, progress.at, progress.unit
            self._bar.n = progress.at
        self._bar.set_postfix_str(f"{progress.scored} rows, {progress.rejected} rejected", refresh=False)
        self._bar.update(progress.at - self._bar.n)

    def tell(self, error: SecureInferError, seconds: float) -> None:
        self._bar.write(f"secure-infer score: waits {seconds:.1f} s: {error.message} [{error.reason}]", file=sys.stderr)


@contextmanager
def _bar() -> Iterator[_Bar]:
    with tqdm(desc="score", unit_scale=True, leave=False, disable=None) as bar:
        yield _Bar(bar)


def _show(summary: Summary, job: Job, *, as_json: bool) -> None:
    rejected = job.out.with_name(job.out.name + ".rejected.jsonl")
    if as_json:
        files = {"out": str(job.out), "rejected_file": str(rejected) if summary.rejected else None}
        found = {**asdict(summary), "rows_per_second": summary.rows_per_second, **files}
        connection.show([json.dumps(found)])
        return
    again = f", resumed {summary.resumed} times" if summary.resumed else ""
    lines = [
        f"{summary.scored} of {summary.rows} rows scored by {summary.model} ({summary.model_digest[:12]}…) in "
        f"{summary.seconds:.1f} s{again}: {job.out}",
        f"{summary.rows_per_second:.0f} rows a second, in chunks of {summary.chunk_rows}; seconds: "
        f"prepare {summary.prepare_seconds:.1f}, score {summary.score_seconds:.1f}, read {summary.read_seconds:.1f}, "
        f"write {summary.write_seconds:.1f}, waited {summary.wait_seconds:.1f}",
        f"{summary.bytes_up} bytes up, {summary.bytes_down} down, {summary.key_bytes} of keys",
    ]
    if summary.rejected:
        lines.append(
            f"{summary.rejected} row{'s' * (summary.rejected != 1)} rejected, by number and reason: {rejected}"
        )
    connection.show(lines)
