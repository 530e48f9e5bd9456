"""`secure-infer predict`: logits of rows in a .npy file, computed under encryption or by two parties on shares."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput
from secure_infer.heads import Task
from secure_infer_client.commands import connection, recording
from secure_infer_client.costs import accuracy


def run(arguments: list[str]) -> int:
    """Score the rows; prints a line a row, or one JSON object with logits, labels and cost."""
    parser = argparse.ArgumentParser("secure-infer predict", description=__doc__)
    connection.add_options(parser)
    parser.add_argument(
        "--embeddings", type=Path, required=True, metavar="FILE.npy", help="array (B, d) of float32 or float64"
    )
    recording.add_options(parser)
    options = parser.parse_args(arguments)
    x = _rows(options.embeddings)
    with recording.opened(options) as record, connection.client(options, record=record) as client:
        spec = client.spec
        rows = spec.contract.check(x)  # all of them before the first leaves
        label_only = client.label_only
        with connection.progress("rows") as reached:
            if label_only:
                labels = client.decide(rows, progress=reached)
            else:
                logits = client.predict(rows, progress=reached)
                labels = spec.decide(logits)
        stats, plan = client.last_call.stats, client.plan
    weighed = not label_only and spec.task is not Task.REGRESSION
    probabilities = spec.probabilities(logits).max(axis=1) if weighed else None
    if options.json:
        result = {
            "model": spec.name,
            "model_digest": spec.digest,
            "labels": labels,
            "probabilities": None if probabilities is None else probabilities.tolist(),
            "logits": None if label_only else logits.tolist(),
            "error_bound": stats.error_bound,
            "stats": asdict(stats),
        }
        connection.show([json.dumps(result)])
        return 0
    sure = [""] * len(labels) if probabilities is None else [f"{p:6.1%}  " for p in probabilities]
    lines = [f"{i:>6}  {sure[i]}{labels[i]}" for i in range(len(labels))]
    rows_in_words = f"{len(labels)} row{'' if len(labels) == 1 else 's'}"
    lines.append(f"{rows_in_words} in {stats.total_ms:.1f} ms, {stats.plan}, {accuracy(plan, stats.error_bound)}")
    connection.show(lines)
    return 0


def _rows(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InvalidInput(f"--embeddings: {path} cannot be read ({error.strerror or 'no such array file'})") from error
    except (ValueError, EOFError) as error:
        raise InvalidInput(f"--embeddings: {path} is not a .npy array of numbers; save one with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"--embeddings: {path} holds several arrays; expected one, saved with numpy.save")
    return array
