"""Labelled data of the user's own: CSV or JSON Lines, a text or numeric features a row, a label, perhaps a subgroup."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput, SettingsError

MAX_FIELD = 1 << 24  # characters of one text


@dataclass(frozen=True)
class Labelled:
    """texts, or else features (B, d); the true label of each row; its subgroup, where a column names one."""

    texts: list[str] | None
    features: NDArray[np.float64] | None
    labels: list[str]
    groups: list[str] | None


def read(path: Path, *, text: str, label: str, group: str | None, labels: Sequence[str]) -> Labelled:
    """Read `path`; columns named `text` (else all other columns are features), `label`, `group`.

    Raises SettingsError for a missing file or column, InvalidInput for rows that do not fit, naming line numbers only.
    """
    rows = _rows(path)
    if not rows:
        raise InvalidInput(f"{path.name}: holds no rows")
    columns = list(rows[0])
    for name in [label, *([group] if group else [])]:
        if name not in columns:
            raise SettingsError(f"{path.name}: no column {name!r}; it has {', '.join(columns)}")
    truth = [str(row[label]) for row in rows]
    unknown = [index for index, name in enumerate(truth) if name not in labels]
    if unknown:
        raise InvalidInput(
            f"{path.name}: {len(unknown)} of {len(rows)} labels are not the model's, first in data row {unknown[0] + 1}; "
            f"the model's are {', '.join(labels)}"
        )
    groups = [str(row[group]) for row in rows] if group else None
    if text in columns:
        return Labelled([str(row[text]) for row in rows], None, truth, groups)
    names = [name for name in columns if name not in (label, group)]
    features = np.empty((len(rows), len(names)))
    for index, row in enumerate(rows):
        try:
            features[index] = [float(row[name]) for name in names]
        except (TypeError, ValueError, KeyError):
            raise InvalidInput(f"{path.name}: data row {index + 1}: expected numbers in {', '.join(names)}") from None
    return Labelled(None, features, truth, groups)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name}: is not UTF-8") from error
    if path.suffix in (".jsonl", ".ndjson"):
        rows = []
        for number, line in enumerate(content.split("\n"), 1):  # not splitlines: texts may hold other separators
            if line.strip():
                try:
                    rows.append(dict(json.loads(line)))
                except (ValueError, TypeError):
                    raise InvalidInput(f"{path.name}: line {number} is not a JSON object") from None
    elif path.suffix == ".csv":
        csv.field_size_limit(MAX_FIELD)
        try:
            rows = list(csv.DictReader(io.StringIO(content, newline="")))
        except csv.Error as error:
            raise InvalidInput(f"{path.name}: is not CSV ({error})") from None
    else:
        raise SettingsError(f"{path.name}: expected .csv or .jsonl")
    complete = set(rows[0]) if rows else set()
    short = [i for i, row in enumerate(rows) if set(row) != complete or None in row.values()]
    if short:
        raise InvalidInput(f"{path.name}: data row {short[0] + 1} has other columns than the first")
    return rows
