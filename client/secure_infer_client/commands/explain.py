"""`secure-infer explain`: which words of a text made the answer, by occlusion under encryption, or exactly for a published
linear head."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer.heads import Head
from secure_infer_client.commands import connection
from secure_infer_client.explanation.units import UNITS


def run(arguments: list[str]) -> int:
    """Explain one text; prints it with bars, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer explain", description=__doc__)
    connection.add_options(parser)
    parser.add_argument("--text", required=True, metavar="TEXT", help="the text; - reads it from standard input")
    parser.add_argument("--label", metavar="LABEL", help="what to explain, or a part of its name (the label answered)")
    parser.add_argument("--units", choices=list(UNITS), default="words", help="what is left out in turn (words)")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="F.head",
        help="the served head, where it is linear and public: exact, unasked",
    )
    parser.add_argument("--keep-identifiers", action="store_true", help="do not remove names, dates and the like first")
    parser.add_argument("--html", type=Path, metavar="F", help="write a page as well; it holds the text")
    options = parser.parse_args(arguments)
    published = None if options.published is None else Head.load(options.published)
    text = sys.stdin.read() if options.text == "-" else options.text
    with (
        connection.client(options, deidentify=not options.keep_identifiers) as client,
        connection.progress("explaining") as progress,
    ):
        found = client.explain(text, units=options.units, label=options.label, published=published, progress=progress)
        digest = client.spec.digest
    if options.html is not None:
        try:
            options.html.write_text(found.html(), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--html: {options.html} cannot be written ({error.strerror})") from error
    if options.json:
        summary = {
            "model": options.model,
            "model_digest": digest,
            "label": found.label,
            "logit": found.logit,
            "method": found.method,
            "units": [
                {"text": word, "attribution": float(share)}
                for word, share in zip(found.words, found.attributions, strict=True)
            ],
            "rest": None if published is None else found.rest,
            "error_bound": found.error_bound,
        }
        connection.show([json.dumps(summary, ensure_ascii=False)])
        return 0
    terminal = sys.stdout.isatty()
    connection.show(found.lines(min(100, shutil.get_terminal_size().columns) if terminal else 72, colour=terminal))
    return 0
