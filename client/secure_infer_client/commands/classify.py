"""`secure-infer classify`: texts embedded on this machine, and classified under encryption or by two parties on shares."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer_client.commands import connection, recording
from secure_infer_client.costs import accuracy
from secure_infer_client.prediction import Prediction
from secure_infer_client.text.prepare import POLICIES


def run(arguments: list[str]) -> int:
    """Classify; prints a line a text, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer classify", description=__doc__)
    connection.add_options(parser)
    parser.add_argument("--text", action="append", nargs="+", default=[], metavar="TEXT", help="texts; may be repeated")
    parser.add_argument("--file", type=Path, metavar="F", help="a text file, one text a line")
    parser.add_argument(
        "--keep-identifiers",
        action="store_true",
        help="do not remove dates, contacts, identifiers, names and addresses first",
    )
    parser.add_argument(
        "--long-text", choices=POLICIES, default="pool", help="texts of several windows: pool them, or score apart"
    )
    recording.add_options(parser)
    options = parser.parse_args(arguments)
    texts = [text for group in options.text for text in group]
    if options.file is not None:
        try:
            texts += [line for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise SettingsError(f"--file: {options.file} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"--file: {options.file} is not UTF-8 text") from error
    if not texts:
        what = f"{options.file} holds no text" if options.file is not None else "give --text TEXT or --file F"
        raise SettingsError(f"no texts: {what}")
    how = {"deidentify": not options.keep_identifiers, "long_text": options.long_text}
    with recording.opened(options) as record, connection.client(options, record=record, **how) as client:
        predictions = client.classify(texts)
        spec, plan, stats = client.spec, client.plan, client.last_call.stats
        label_only = client.label_only
    if options.json:
        results = [
            {
                "text": text,
                "label": p.label,
                "probability": _number(p.probability),
                "logits": p.logits.tolist(),
                "margin": _number(p.margin),
                "error_bound": p.error_bound,
                "certain": p.certain,
                "removed": [asdict(r) for r in p.removed],
                "truncated": p.truncated,
                "windows": p.windows,
                "abstain": p.abstain,
                "parts": [{"label": part.label, "probability": part.probability} for part in p.parts],
            }
            for text, p in zip(texts, predictions, strict=True)
        ]
        summary = {"model": spec.name, "model_digest": spec.digest, "predictions": results, "stats": asdict(stats)}
        connection.show([json.dumps(summary, ensure_ascii=False)])
        return 0
    width = min(60, max(map(len, texts)))
    lines = [
        f"{text[:width]:<{width}}  {_sure(p)}{p.label}{_remarks(p)}" for text, p in zip(texts, predictions, strict=True)
    ]
    removed = sum(len(p.removed) for p in predictions)
    if removed:
        lines.append(f"removed before embedding: {removed} dates, contacts or identifiers (--json lists them)")
    if label_only:
        lines.append(f"labels alone: {accuracy(plan, stats.error_bound)}")
    connection.show(lines)
    return 0


def _number(value: float) -> float | None:
    """`value`, or None for NaN, which JSON does not have: labels alone have neither probability nor margin."""
    return None if math.isnan(value) else value


def _sure(prediction: Prediction) -> str:
    return "" if math.isnan(prediction.probability) else f"{prediction.probability:6.1%}  "


def _remarks(prediction: Prediction) -> str:
    """What a reader should know of one answer, in brackets."""
    remarks = [f"{prediction.windows} windows"] * (prediction.windows > 1)
    remarks += ["close call: within twice the error bound"] * (prediction.margin <= 2 * prediction.error_bound)
    remarks += ["below the model's advice: ask a person"] * prediction.abstain
    return f"  ({'; '.join(remarks)})" if remarks else ""
