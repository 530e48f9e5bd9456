"""`secure-infer evaluate`: a model on your own labelled data, encrypted beside plaintext, before going live."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer.errors import ModelChanged, SettingsError
from secure_infer.heads import Head, ModelSpec, Task
from secure_infer_client.client import Client
from secure_infer_client.commands import connection
from secure_infer_client.labelled import Labelled, read
from secure_infer_client.scoring import Rate, abstention, report

CHUNK = 256


def run(arguments: list[str]) -> int:
    """Evaluate; prints tables, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer evaluate", description=__doc__)
    connection.add_options(parser)
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE", help=".csv or .jsonl, one labelled row a record"
    )
    parser.add_argument(
        "--text-column", default="text", metavar="NAME", help="texts (text); without it, the other columns are features"
    )
    parser.add_argument(
        "--label-column", default="label", metavar="NAME", help="true labels, as the model names them (label)"
    )
    parser.add_argument("--group-column", metavar="NAME", help="subgroup: accuracy is given for each")
    parser.add_argument(
        "--head",
        type=Path,
        metavar="FILE.head",
        help="the model's artifact, where you have it: plaintext beside encrypted",
    )
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="P",
        help="leave answers less probable to a person; default: the model's advice",
    )
    options = parser.parse_args(arguments)
    if options.abstain_below is not None and not 0 < options.abstain_below < 1:
        raise SettingsError(f"--abstain-below: expected a probability between 0 and 1, got {options.abstain_below}")
    with connection.client(options) as client:
        spec = client.spec
        if spec.task is not Task.CLASSIFICATION:
            raise SettingsError(f"model {spec.name!r} does {spec.task}; evaluate takes classifiers")
        if client.label_only:
            raise SettingsError(f"model {spec.name!r} answers with labels alone; evaluate weighs logits")
        head = _reference(options.head, spec)
        data = read(
            options.labels,
            text=options.text_column,
            label=options.label_column,
            group=options.group_column,
            labels=spec.labels,
        )
        rows, logits = _scored(client, data)
        bound, plan = client.last_call.stats.error_bound, client.last_call.stats.plan
    result = {
        "model": spec.name,
        "model_digest": spec.digest,
        "rows": len(data.labels),
        "plan": plan,
        "error_bound": bound,
        "encrypted": _report(spec, logits, data, options.abstain_below),
    }
    if head is not None:
        plain = head.evaluate(rows)
        result["plaintext"] = _report(spec, plain, data, options.abstain_below)
        same = np.array([a == b for a, b in zip(spec.decide(logits), spec.decide(plain), strict=True)])
        sure = spec.margins(plain) > 2 * bound
        result["agreement"] = asdict(Rate.of(same))
        result["agreement_beyond_twice_the_bound"] = asdict(Rate.of(same[sure]))
        result["max_logit_error"] = float(np.abs(logits - plain).max())
    if options.json:
        connection.show([json.dumps(_without_nan(result))])
    else:
        connection.show(_tables(result))
    return 0


def _reference(path: Path | None, spec: ModelSpec) -> Head | None:
    if path is None:
        return None
    head = Head.load(path)
    if head.digest != spec.digest:
        raise ModelChanged(f"{path.name}: its digest {head.digest[:12]}… is not the served model's {spec.digest[:12]}…")
    return head


def _scored(client: Client, data: Labelled) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, logits); texts are embedded in chunks, and scored all together."""
    if data.texts is None:
        rows = client.spec.contract.check(data.features if data.features is not None else [])
    else:
        chunks = [data.texts[start : start + CHUNK] for start in range(0, len(data.texts), CHUNK)]
        bar = tqdm(chunks, desc="embedding", unit_scale=CHUNK, leave=False, disable=None)
        rows = np.concatenate([client.embed(chunk) for chunk in bar])
    with connection.progress("rows") as reached:
        return rows, client.predict(rows, progress=reached)


def _report(spec: ModelSpec, logits: NDArray[np.float64], data: Labelled, threshold: float | None) -> dict[str, Any]:
    answers = spec.decide(logits)
    found = report(spec.labels, data.labels, answers, data.groups)
    threshold = spec.abstain_below if threshold is None else threshold
    if threshold is not None:
        right = np.array([a == t for a, t in zip(answers, data.labels, strict=True)])
        found["abstention"] = abstention(right, spec.probabilities(logits).max(axis=1), threshold)
    return found


def _without_nan(value: Any) -> Any:
    """`value` with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _tables(result: dict[str, Any]) -> list[str]:
    encrypted = result["encrypted"]
    lines = [
        f"{result['rows']} row{'' if result['rows'] == 1 else 's'}, {result['model']}, {result['plan']}, "
        f"logit error at most {result['error_bound']:g}"
    ]
    for kind in ("encrypted", "plaintext"):
        if kind in result:
            accuracy = Rate(**result[kind]["accuracy"])
            lines.append(f"  {kind:<10} accuracy {accuracy}, macro-F1 {result[kind]['macro_f1']:.1%}")
    if "agreement" in result:
        lines.append(f"  agreement  {Rate(**result['agreement'])}; largest logit error {result['max_logit_error']:.1e}")
    if "abstention" in encrypted:
        kept = encrypted["abstention"]
        lines.append(
            f"  leaving answers below {kept['threshold']:.0%} to a person: answered {Rate(**kept['answered'])}, "
            f"of these right {Rate(**kept['accuracy'])}"
        )
    width = max(len(name) for name in [*encrypted["classes"], *encrypted["groups"], "class"])
    lines.append(f"  {'class':<{width}}  {'recall, 95% interval':<34}  precision")
    for name, rates in encrypted["classes"].items():
        if rates["recall"]["count"] or rates["precision"]["count"]:
            lines.append(f"  {name:<{width}}  {_cell(rates['recall']):<34}  {_cell(rates['precision'])}")
    for name, rate in encrypted["groups"].items():
        lines.append(f"  {name:<{width}}  accuracy {Rate(**rate)}")
    return lines


def _cell(rate: dict[str, Any]) -> str:
    return str(Rate(**rate)) if rate["count"] else "none"
