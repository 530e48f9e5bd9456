"""Waits while a server is away or its budget is used up, within a limit."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TypeVar

from secure_infer.errors import (
    AuditUnavailable,
    BudgetExhausted,
    BudgetUnavailable,
    CorrelationsExhausted,
    PeerFailure,
    ResourceExhausted,
    SecureInferError,
    ServerUnavailable,
)

TRANSIENT = (
    ServerUnavailable,
    PeerFailure,
    CorrelationsExhausted,
    ResourceExhausted,
    BudgetExhausted,
    BudgetUnavailable,
    AuditUnavailable,
)
FIRST, LONGEST = 0.5, 30.0
"""Seconds between attempts: twice as many each time."""

Result = TypeVar("Result")


@dataclass
class Patience:
    """limit: seconds of one outage. tell: is told of each pause, with its reason and seconds. waited: seconds in all."""

    limit: float
    tell: Callable[[SecureInferError, float], None]
    clock: Callable[[], float] = monotonic
    pause: Callable[[float], None] = sleep
    waited: float = 0.0
    retries: int = field(default=0)

    def call(self, function: Callable[[], Result]) -> Result:
        """`function()`, again while it fails for a reason that passes; then raises that reason."""
        started, seconds = self.clock(), FIRST
        while True:
            try:
                return function()
            except TRANSIENT as error:
                least = until(error)
                wanted = max(seconds * (0.75 + secrets.randbelow(500) / 1000), 0.0 if least is None else least)
                if least is None or self.clock() - started + wanted > self.limit:
                    raise
                self.tell(error, wanted)
                self.pause(wanted)
                self.waited, self.retries = self.waited + wanted, self.retries + 1
                seconds = min(2 * seconds, LONGEST)


def until(error: SecureInferError) -> float | None:
    """Seconds before which asking again is in vain; None when it always is."""
    if isinstance(error, ResourceExhausted):
        return 0.0 if "again" in error.details else None
    renews = error.details.get("renews")
    if renews is None:
        return 0.0
    try:
        return max(0.0, (datetime.fromisoformat(renews) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # "never"
        return None
