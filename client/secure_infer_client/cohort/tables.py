"""Parquet, by pyarrow (`pip install 'secure-infer[tables]'`): read by batches, written by row groups."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_client import durable
from secure_infer_client.cohort.rows import Columns, Place, Rejected, Row

BATCH = 512
"""Rows in memory at a time, while reading."""

GROUP = 16384
"""Rows of a row group that is written."""

BUFFER = 1 << 20


class Parquet:
    """A parquet file. whole: its rows."""

    unit = "rows"

    def __init__(self, path: Path, columns: Columns) -> None:
        """Raises SettingsError for a file that cannot be read or lacks a column, ModuleNotFoundError without pyarrow."""
        from pyarrow import ArrowException

        self._path, self._columns = path, columns
        try:
            with self._open() as file:
                self.whole: int = file.metadata.num_rows
                names = list(file.schema_arrow.names)
        except (OSError, ArrowException) as error:
            raise SettingsError(f"{path}: cannot be read as parquet ({type(error).__name__})") from error
        columns.missing_in(names, path.name)

    def _open(self) -> Any:
        from pyarrow.parquet import ParquetFile

        # With a buffer, pages are read as they are needed, not a row group at once.
        return ParquetFile(self._path, buffer_size=BUFFER, pre_buffer=False)

    def read(self, place: Place) -> Iterator[tuple[Row | Rejected, Place]]:
        with self._open() as file:
            start, groups = 0, range(file.metadata.num_row_groups)
            for group in groups:
                size = file.metadata.row_group(group).num_rows
                if start + size > place.at:
                    break
                start += size
            else:
                return
            number = start
            for batch in file.iter_batches(BATCH, row_groups=groups[group:], columns=self._columns.names):
                if number + batch.num_rows <= place.at:
                    number += batch.num_rows
                    continue
                values = {name: _values(batch.column(name)) for name in self._columns.names}
                for index in range(batch.num_rows):
                    number += 1
                    if number > place.at:
                        row = self._columns.row(number, {name: values[name][index] for name in values})
                        yield row, Place(number, number)


def _values(column: Any) -> list[Any]:
    """Values as Python has them; text by its bytes, as pyarrow refuses a whole column for one that is not UTF-8."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        binary = column.cast(pa.large_binary()).to_pylist()
        return [None if one is None else one.decode("utf-8", "surrogateescape") for one in binary]
    found: list[Any] = column.to_pylist()
    return found


_TYPES = {
    "row": "int64",
    "id": "string",
    "label": "string",
    "probability": "float64",
    "margin": "float64",
    "certain": "bool_",
    "abstain": "bool_",
    "error_bound": "float64",
    "model_digest": "string",
}


def write(lines: Path, out: Path, names: Sequence[str]) -> None:
    """The answers in `lines` (JSON Lines) as a parquet file of these columns, which is complete when this returns."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    types = {name: pa.list_(pa.float64()) if name == "logits" else getattr(pa, _TYPES[name])() for name in names}
    schema = pa.schema(types)
    made = out.with_name(out.name + ".new")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with parquet.ParquetWriter(file, schema) as writer:
            for group in _groups(lines):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
        file.flush()
        durable.sync(file.fileno())
    durable.rename(made, out)


def _groups(lines: Path) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    with lines.open("rb") as file:
        for line in file:
            group.append(json.loads(line))
            if len(group) == GROUP:
                yield group
                group = []
    if group:
        yield group
