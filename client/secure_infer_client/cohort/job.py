"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client.cohort.lines import Csv, JsonLines
from secure_infer_client.cohort.rows import Columns, Source
from secure_infer_client.cohort.tables import Parquet

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Job:
    """input, out: their suffixes say what they are. delimiter: of CSV; None finds it. logits: whether they are written.
    remove: de-identify texts. long_text: as `Client`. chunk: rows scored together, None lets the plans offered decide.
    workers: embedding processes, 0 for none. wait: seconds to wait for a server that is away. restart: remove what an
    earlier run wrote."""

    input: Path
    out: Path
    columns: Columns
    encoding: str = "utf-8"
    delimiter: str | None = None
    logits: bool = False
    remove: bool = True
    long_text: str = "pool"
    chunk: int | None = None
    workers: int = 1
    wait: float = 600.0
    restart: bool = False

    def __post_init__(self) -> None:
        for name, path in (("INPUT", self.input), ("--out", self.out)):
            if path.suffix not in FORMATS:
                raise SettingsError(f"{name}: expected a name that ends in {', '.join(FORMATS)}, got {path.name}")
        if self.input.resolve() == self.out.resolve():
            raise SettingsError("--out: expected another file than the input")
        if self.chunk is not None and self.chunk < 1:
            raise SettingsError(f"--chunk: expected at least 1 row, got {self.chunk}")
        if not 0 <= self.workers <= 256:
            raise SettingsError(f"--embed-workers: expected 0 to 256, got {self.workers}")
        if not self.wait >= 0:
            raise SettingsError(f"--wait: expected seconds, at least 0, got {self.wait}")

    def source(self) -> Source:
        """The input. Raises SettingsError."""
        match FORMATS[self.input.suffix]:
            case "csv":
                delimiter = "\t" if self.delimiter == "tab" else self.delimiter
                return Csv(self.input, self.columns, self.encoding, delimiter)
            case "jsonl":
                return JsonLines(self.input, self.columns, self.encoding)
            case _:
                return Parquet(self.input, self.columns)

    def facts(self, spec: ModelSpec, scheme: str, content: tuple[int, str]) -> dict[str, Any]:
        """What a run that goes on has to have in common with the one that began. content: of the input, `identity`."""
        return {
            "input bytes": content[0],
            "input sha256": content[1],
            "model": spec.name,
            "model digest": spec.digest,
            "scheme": scheme,
            "columns": " ".join(self.columns.names),
            "id column": self.columns.id,
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "logits": self.logits,
            "remove identifiers": self.remove,
            "long text": self.long_text,
        }
