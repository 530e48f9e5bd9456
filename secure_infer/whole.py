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
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Names that were made or replaced in it are on disk when this returns. Raises OSError."""
    if os.name != "posix":  # directories cannot be opened there
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
