"""Files that appear whole or not at all, and are on disk when the call returns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file. Raises OSError."""
    _put(path, data, mode, lambda made: made.replace(path))


def create(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A file that was not there before: nothing is replaced, and of several that make it one succeeds. Raises OSError."""
    _put(path, data, mode, path.hardlink_to)


def _put(path: Path, data: bytes, mode: int, place: Callable[[Path], object]) -> None:
    """place: gives the file that was made its name, or one name more."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        place(Path(temporary))
    finally:
        Path(temporary).unlink(missing_ok=True)
    if os.name != "posix":  # directories cannot be opened there
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
