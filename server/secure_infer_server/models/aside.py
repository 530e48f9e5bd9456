"""Work in a process of its own, at low priority: it does not hold up the server's threads, and may die of its input."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from secure_infer.errors import CATALOGUE, InvalidHead, SecureInferError

log = logging.getLogger(__name__)

NICE = 10
LONGEST = 900.0
"""Seconds that it may take."""

Result = TypeVar("Result")


class Ended(Exception):
    """The server ends; nobody waits for the result."""


def run(work: Callable[[], Result], ending: threading.Event) -> Result:
    """What `work`, which can be pickled, returns. Raises what it raises of the catalogue; InvalidHead when the process dies or
    takes too long; Ended once `ending` is set."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_main, args=(theirs, work), name="secure-infer-planner", daemon=True
    )
    try:
        process.start()
        theirs.close()
        for _ in range(int(LONGEST / 0.2)):
            if ending.is_set():
                raise Ended
            if ours.poll(0.2):
                break
        else:
            raise InvalidHead(f"planning it took longer than {LONGEST:.0f} s, and was ended")
        try:
            outcome, data = ours.recv()
        except (EOFError, OSError):
            process.join(5)
            raise InvalidHead(f"the process that planned it ended (exit code {process.exitcode})") from None
        if outcome == "done":
            return data  # type: ignore[no-any-return]
        raise CATALOGUE.get(outcome, InvalidHead)(data)
    finally:
        ours.close()
        if process.is_alive():
            process.kill()
        process.join(5)


def _main(connection: Connection, work: Callable[[], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    os.nice(NICE)
    try:
        answer: tuple[str, Any] = ("done", work())
    except SecureInferError as error:
        answer = (error.reason, error.message)
    except Exception as error:
        answer = (InvalidHead.reason, f"it cannot be planned ({type(error).__name__})")
    connection.send_bytes(ForkingPickler.dumps(answer))


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
