"""How far a run is, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """at, of `whole`, in `unit` ("B" or "rows"): how far the input is done; scored and rejected rows of all runs."""

    at: int
    whole: int
    unit: str
    scored: int
    rejected: int


@dataclass
class Summary:
    """Of a finished run. rows: of the input, which were scored or rejected. seconds, bytes: of all runs; resumed: how often it
    went on. run_rows, run_seconds: of the last one; of its seconds, those spent reading, preparing (in all processes
    together), scoring, writing, and waiting for a server that was away."""

    model: str
    model_digest: str
    rows: int
    scored: int
    rejected: int
    resumed: int
    seconds: float
    bytes_up: int
    bytes_down: int
    key_bytes: int
    chunk_rows: int
    plan: str
    run_rows: int = 0
    run_seconds: float = 0.0
    read_seconds: float = 0.0
    prepare_seconds: float = 0.0
    score_seconds: float = 0.0
    write_seconds: float = 0.0
    wait_seconds: float = 0.0
    retries: int = 0

    @property
    def rows_per_second(self) -> float:
        """Of the last run."""
        return self.run_rows / self.run_seconds if self.run_seconds else 0.0
