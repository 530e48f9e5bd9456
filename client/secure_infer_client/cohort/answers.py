"""Answers as they are written: one a scored row, in the columns that the model has something to say in."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from secure_infer.heads import ModelSpec, Task
from secure_infer_client.cohort.rows import Row
from secure_infer_client.prediction import Prediction


def columns(spec: ModelSpec, *, ids: bool, label_only: bool, logits: bool) -> list[str]:
    """Their names. A label alone, and a regression's numbers, have nothing to weigh them by; the numbers stand in `logits`."""
    regression = spec.task is Task.REGRESSION
    weighed = [] if label_only or regression else ["probability", "margin", "certain", "abstain"]
    numbers = ["logits"] if (logits or regression) and not label_only else []
    return ["row", *(["id"] if ids else []), "label", *weighed, "error_bound", "model_digest", *numbers]


def values(row: Row, answer: Prediction, digest: str, names: Sequence[str]) -> dict[str, Any]:
    """The answer to one row, by column; what is no finite number is None."""
    found = {
        "row": row.number,
        "id": row.id,
        "label": answer.label,
        "probability": _finite(answer.probability),
        "margin": _finite(answer.margin),
        "certain": answer.certain,
        "abstain": answer.abstain,
        "error_bound": answer.error_bound,
        "model_digest": digest,
        "logits": answer.logits.tolist(),
    }
    return {name: found[name] for name in names}


def as_json(answers: Sequence[dict[str, Any]]) -> bytes:
    """JSON Lines, UTF-8."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers).encode()


def as_csv(answers: Sequence[dict[str, Any]], names: Sequence[str]) -> bytes:
    """CSV without its header, UTF-8: true and false, logits as a JSON list, nothing for None."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([[_cell(one[name]) for name in names] for one in answers])
    return text.getvalue().encode()


def csv_header(names: Sequence[str]) -> bytes:
    return (",".join(names) + "\n").encode()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | list) else value
