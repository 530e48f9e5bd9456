"""What the operator decides: how many records a caller may ask of a model, and how long answers are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.errors import SettingsError

MAX_RECORDS = 1 << 62


@dataclass(frozen=True)
class Allowance:
    """Records that one identity may ask of one model. total: ever; daily: in a calendar day, UTC. None: no such limit.

    Around midnight two days' allowances can be spent in a short while.
    """

    total: int | None = None
    daily: int | None = None

    def __post_init__(self) -> None:
        for name, records in (("total", self.total), ("daily", self.daily)):
            if records is not None and not 1 <= records <= MAX_RECORDS:
                raise SettingsError(f"budget, {name}: expected at least 1 record, got {records}")

    @property
    def unlimited(self) -> bool:
        return self.total is None and self.daily is None

    @property
    def largest(self) -> int:
        """Records that one request may ask for at most."""
        return min(limit for limit in (self.total, self.daily, MAX_RECORDS) if limit is not None)


@dataclass(frozen=True)
class BudgetSettings:
    """One ledger; several server processes on one machine may share it.

    path: the SQLite file, on a local disk. allowance: of models that `models` does not name. block: records that a process
    leases ahead for one identity and model; a crash loses at most so many of the caller's, and never one of the model's.
    idle: seconds after which a lease that nobody uses goes back.
    answer_seconds, answer_bytes: how long, and how many bytes of, answers are kept in memory for identical requests.
    answer_file: an SQLite file that keeps them over a restart and shares them between processes; None: memory alone.
    """

    path: Path
    allowance: Allowance = Allowance()
    models: Mapping[str, Allowance] = field(default_factory=dict)
    block: int = 256
    idle: float = 30.0
    answer_seconds: float = 600.0
    answer_bytes: int = 64 << 20
    answer_file: Path | None = None
    answer_file_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name, least in (("block", 1), ("answer_bytes", 0), ("answer_file_bytes", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"budgets, {name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("idle", "answer_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise SettingsError(f"budgets, {name}: expected seconds up to a day, got {getattr(self, name)}")
        if self.answer_file == self.path:
            raise SettingsError(f"budgets: {self.path} cannot hold both the ledger and the answers; name two files")

    def of(self, model: str) -> Allowance:
        return self.models.get(model, self.allowance)
