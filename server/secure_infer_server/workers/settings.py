"""What an operator decides about workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from secure_infer.errors import SettingsError


def usual_count() -> int:
    """One worker a core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True)
class WorkerSettings:
    """count: worker processes for plans that take longer than a millisecond or two; 0: threads of the server instead.
    queue: requests that wait for a worker at most. memory: bytes of a worker (resident) beyond which it is replaced.
    requests: after so many it is replaced, too. Raises SettingsError."""

    count: int = field(default_factory=usual_count)
    queue: int = 64
    memory: int = 2 << 30
    requests: int = 100_000

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 256:
            raise SettingsError(f"--workers: expected 0 to 256, got {self.count}")
        if self.queue < 1:
            raise SettingsError(f"--queue: expected at least 1 request, got {self.queue}")
        if self.memory < 256 << 20:
            raise SettingsError(f"--worker-memory: expected at least 256 MiB, got {self.memory >> 20}")
        if self.requests < 1:
            raise SettingsError(f"worker requests: expected at least 1, got {self.requests}")

    @property
    def key_bytes(self) -> int:
        """What a worker holds of clients' keys, loaded."""
        return self.memory // 4
