"""What was measured, as reports hold it: samples with their median and spread, rows of a suite, and what it was read on.

A report is one JSON object, the same for every suite:

    {"format": FORMAT, "command": "secure-infer bench --suite quick", "date": "2026-11-22", "machine": {...},
     "suites": {"cost": {"seconds": 61.0, "rows": [ROW, ...], ...}, ...}}

    ROW = {"id": "icd10-chapter/ckks/slots",            unique in the suite, the same from run to run
           "figures": {"call_ms": FIGURE, ...},         what varies from repeat to repeat
           "counts": {"bytes_up": 467136, ...},         what does not
           ...}                                         what the row is: head, shape, scheme, plan, security, or a reason

    FIGURE = {"unit": "ms", "better": "lower", "median": 2.0, "low": 1.5, "high": 2.5, "repeats": 3, "samples": [1.0, 2.0, 3.0]}

low and high are the quartiles. Samples are kept, in the order in which they were taken, so that two reports can be compared.
A row without figures has a `reason`. `security` of a row is {"input_private", "model_private": bool, "bits": int or None,
"smudging_bits": int or None, "rests_on": str}, and where it is told "model_hidden_from": str.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from secure_infer import whole
from secure_infer.errors import SettingsError
from secure_infer.heads import Head, Linear

FORMAT = "secure-infer-bench/1"
MOST_SAMPLES = 400
"""Of one figure in a report; of more, evenly chosen ones are kept, the median and quartiles are those of all."""
PACKAGES = ("secure-infer", "tenseal", "numpy", "grpcio", "protobuf", "onnxruntime")

Figure = dict[str, Any]
Row = dict[str, Any]
Suite = dict[str, Any]


def figure(samples: Sequence[float], unit: str = "ms", better: Literal["lower", "higher"] = "lower") -> Figure:
    """Samples of one quantity, at least one, with their median and quartiles.

    >>> figure([3.0, 1.0, 2.0])["median"]
    2.0
    """
    values = np.asarray(samples, dtype=np.float64)
    low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    kept = values
    if len(values) > MOST_SAMPLES:
        kept = values[np.linspace(0, len(values) - 1, MOST_SAMPLES).round().astype(int)]
    return {
        "unit": unit,
        "better": better,
        "median": middle,
        "low": low,
        "high": high,
        "repeats": len(values),
        "samples": [float(f"{value:.5g}") for value in kept],
    }


def ratio(ours: Sequence[float], unit: Sequence[float]) -> Figure:
    """Ours over the unit, round by round: a slow moment of the machine hits both and cancels.

    ours, unit: taken in the same rounds, so of the same length; raises ValueError if not.
    """
    if len(ours) != len(unit):
        raise ValueError(f"a ratio by rounds takes as many samples of both; got {len(ours)} and {len(unit)}")
    return figure([a / b for a, b in zip(ours, unit, strict=True)], unit="x")


def report(command: str, suites: Mapping[str, Suite], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The whole report; machine: what `machine` said before the first suite."""
    return {
        "format": FORMAT,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine, "load_average_after": round(os.getloadavg()[0], 2)},
        "suites": dict(suites),
    }


def save(found: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, json.dumps(found, indent=1).encode() + b"\n")


def load(path: Path) -> dict[str, Any]:
    """A report that `save` wrote; raises SettingsError for a file that is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise SettingsError(f"{path} cannot be read as a report: {type(problem).__name__}") from None
    form = found.get("format") if isinstance(found, dict) else None
    if form != FORMAT:
        raise SettingsError(f"{path}: expected a report of `secure-infer bench --out`, format {FORMAT}; got {form!r}")
    return dict(found)


def shape(head: Head) -> str:
    """A row's `shape`, for example 384 -> 64 -> 10."""
    widths = (len(layer.bias) for layer in head.layers if isinstance(layer, Linear))
    return " -> ".join(map(str, (head.features, *widths)))


def machine() -> dict[str, Any]:
    """What figures are read on: processor, memory, system, versions, threads, and how busy it was before."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name)) is not None},
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "as the library chooses"),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
