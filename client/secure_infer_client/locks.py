"""Locks of open files: one process at a time has one, it ends with the process, and no forked child keeps it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from weakref import WeakMethod

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, that one process writes is left to its users
    fcntl = None  # type: ignore[assignment]

POSIX = fcntl is not None


def take(file: int, *, wait: bool = False) -> bool:
    """Lock an open file; False when another process has it and this one does not `wait`. Without POSIX locks always True."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def let_go(file: int) -> None:
    """Unlock it, whatever copies of it there are in children."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)


def is_in_place(file: int, path: Path) -> bool:
    """Whether an open file is still what its name leads to, and no other was put there, nor it taken away."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def leave_in_children(leave: Callable[[], None]) -> None:
    """Have a method of an object called in every forked child, as long as the object lives: it closes the child's copy, which
    would keep the lock when the parent has ended."""
    known = WeakMethod(leave)

    def left() -> None:
        method = known()
        if method is not None:
            method()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=left)
