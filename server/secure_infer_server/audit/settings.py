"""What the operator decides of the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from secure_infer.errors import SettingsError


class WhenFull(StrEnum):
    """What happens to a request when as many entries wait as may."""

    REFUSE = "refuse"
    WAIT = "wait"


@dataclass(frozen=True)
class AuditSettings:
    """One process's log.

    directory: of the log; each server process needs one of its own. key: file of the Ed25519 signing key, made where there is
    none; None: `audit.key` in the directory, which is worth less: who can rewrite the log can then sign it.
    commit: seconds between the first entry that waits and its write and fsync. What a power cut or the
    process's killing loses is what came within that and one fsync: entries wait while those before them are written.
    queue: entries that wait at most. when_full: refuse requests, or let them wait up to `wait` seconds and refuse then.
    checkpoint_entries, checkpoint_seconds: a signed checkpoint follows after so many entries, or that long after the first
    without one. Who can write to the directory can cut off or rewrite unnoticed what came after the last one.
    rotate_bytes: size after which another file begins; rotate_daily: so does each day, UTC.
    """

    directory: Path
    key: Path | None = None
    commit: float = 0.05
    queue: int = 10_000
    when_full: WhenFull = WhenFull.REFUSE
    wait: float = 5.0
    checkpoint_entries: int = 1000
    checkpoint_seconds: float = 10.0
    rotate_bytes: int = 64 << 20
    rotate_daily: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.commit <= 0.1:
            raise SettingsError(f"audit, commit: expected at most 0.1 seconds, got {self.commit}")
        for name, least in (("queue", 1), ("checkpoint_entries", 1), ("rotate_bytes", 4096)):
            if getattr(self, name) < least:
                raise SettingsError(f"audit, {name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("wait", "checkpoint_seconds"):
            if not 0 < getattr(self, name) <= 3600:
                raise SettingsError(f"audit, {name}: expected seconds up to an hour, got {getattr(self, name)}")

    @property
    def key_file(self) -> Path:
        return self.key or self.directory / "audit.key"
