"""Calls that failed for a passing reason, asked again within their deadline: exponential backoff with jitter.

Asked again is the identical message, under the same request id: a server that answered it already gives the stored answer. An
answer that failed its check is no such failure; nothing here ever sees one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from secure_infer.errors import SecureInferError, ServerUnavailable
from secure_infer_client import transport

Result = TypeVar("Result")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds; each is cut by up to half
UNREACHABLE = 4
"""Calls to a server that cannot be reached; one that says that it may be asked again is asked until the deadline."""


def call(
    target: str,
    timeout: float,
    function: Callable[[float], Result],
    again: Callable[[], None] = lambda: None,
) -> Result:
    """`function(seconds that are left)`, a gRPC call, until it succeeds, fails for good, or `timeout` seconds are over.

    again: called before each further one. Raises the catalogued error of the last.
    """
    deadline, unreachable, pause = monotonic() + timeout, 0, FIRST_PAUSE
    while True:
        left = max(0.0, deadline - monotonic())
        try:
            return transport.call(target, timeout, lambda left=left: function(left))  # type: ignore[misc]
        except SecureInferError as problem:
            unreachable += isinstance(problem, ServerUnavailable)
            passing = "again" in problem.details or isinstance(problem, ServerUnavailable)
            waited = pause * (0.5 + secrets.randbelow(500) / 1000)
            if not passing or unreachable >= UNREACHABLE or monotonic() + waited >= deadline:
                raise
        sleep(waited)
        pause = min(2 * pause, LONGEST_PAUSE)
        again()
