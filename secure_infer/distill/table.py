"""Rows of a user's own data from .npy, .npz or .csv, without pickle."""

from __future__ import annotations

import csv
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput, SettingsError

LABEL = "label"
LEAST_ROWS = 20


@dataclass(frozen=True)
class Table:
    """x: float64 (n, d). labels: n names or class numbers as text, or None."""

    x: NDArray[np.float64]
    labels: tuple[str, ...] | None


def read(path: Path) -> Table:
    """The rows of a file.

    .npy: one array (n, d). .npz: arrays `x` (n, d) and, where known, `y` (n,). .csv: one row a line; a header line is
    optional, and its column `label` holds labels. Raises SettingsError for an unreadable or unknown file, InvalidInput
    for what is not at least 20 rows of finite numbers.
    """
    readers = {".npy": _npy, ".npz": _npz, ".csv": _csv}
    if path.suffix not in readers:
        raise SettingsError(f"--data {path}: got a {path.suffix or 'suffixless'} file; expected .npy, .npz or .csv")
    try:
        x, y = readers[path.suffix](path)
    except OSError as error:
        raise SettingsError(f"--data {path}: cannot be read ({error.strerror or 'not such a file'})") from error
    except (
        EOFError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
        zlib.error,
        MemoryError,
        NotImplementedError,
        csv.Error,
    ) as error:
        raise InvalidInput(f"{path.name}: damaged, or not a {path.suffix} file") from error
    if x.ndim != 2 or x.dtype.kind not in "fiu" or x.shape[1] == 0:
        raise InvalidInput(f"{path.name}: expected real numbers of shape (n, d), got {x.dtype} of shape {x.shape}")
    if len(x) < LEAST_ROWS:
        raise InvalidInput(f"{path.name}: got {len(x)} rows; expected at least {LEAST_ROWS}, better hundreds")
    x = x.astype(np.float64)
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise InvalidInput(
            f"{path.name}: {bad.sum()} rows hold NaN or infinity, first at row {bad.argmax()}; drop them"
        )
    if y is None:
        return Table(x, None)
    if y.shape != (len(x),):
        raise InvalidInput(f"{path.name}: expected {len(x)} labels, one a row, got shape {y.shape}")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.rint(y))).all():
        raise InvalidInput(f"{path.name}: labels are fractions; expected class numbers or names")
    return Table(x, tuple(str(int(v)) if y.dtype.kind in "fiub" else str(v) for v in y.tolist()))


_Arrays = tuple[NDArray[Any], NDArray[Any] | None]


def _npy(path: Path) -> _Arrays:
    try:
        found = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InvalidInput(f"{path.name}: not an array of numbers; save one with numpy.save") from error
    if not isinstance(found, np.ndarray):
        raise InvalidInput(f"{path.name}: holds several arrays; name it .npz")
    return found, None


def _npz(path: Path) -> _Arrays:
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise InvalidInput(f"{path.name}: holds one array; name it .npy")
        with found:
            if "x" not in found:
                raise InvalidInput(
                    f"{path.name}: got arrays {sorted(found)}; expected x (n, d) and, where known, y (n,)"
                )
            return found["x"], found.get("y")
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path.name}: not arrays of numbers or names; save them with numpy.savez") from error


def _csv(path: Path) -> _Arrays:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise InvalidInput(f"{path.name}: holds no rows")
    header = None if all(_number(field) is not None for field in lines[0]) else [f.strip() for f in lines.pop(0)]
    if header is not None and header.count(LABEL) > 1:
        raise InvalidInput(
            f"{path.name}: the header names {header.count(LABEL)} columns `{LABEL}`; expected at most one"
        )
    column = header.index(LABEL) if header is not None and LABEL in header else None
    width = len(header) if header is not None else len(lines[0])
    values, labels = [], []
    for number, line in enumerate(lines):
        if len(line) != width:
            raise InvalidInput(f"{path.name}: row {number} has {len(line)} fields; expected {width}")
        numbers = [_number(field) for index, field in enumerate(line) if index != column]
        if None in numbers:
            raise InvalidInput(
                f"{path.name}: row {number} holds a field that is not a number; expected numbers in every column but `{LABEL}`"
            )
        values.append(numbers)
        if column is not None:
            labels.append(line[column].strip())
    x = np.array(values, dtype=np.float64).reshape(len(values), width - (column is not None))
    return x, np.array(labels) if column is not None else None


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
