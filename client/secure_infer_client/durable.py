"""Writing so that what was written survives a kill at any instruction, and a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def write(file: int, data: bytes) -> None:
    """All of `data` at the file's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync(file: int) -> None:
    """What was written is on the disk when this returns."""
    os.fsync(file)


def cut(file: int, size: int) -> None:
    """End the file after `size` bytes, and write there next."""
    os.ftruncate(file, size)
    os.lseek(file, size, os.SEEK_SET)


def rename(source: Path, target: Path) -> None:
    """`target` is what `source` was, or still what it was itself; never anything between."""
    source.replace(target)
    sync_directory(target.parent)


def replace(path: Path, data: bytes) -> None:
    """A file of these bytes, readable by its owner, in place of what was there."""
    made = path.with_name(path.name + ".new")
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write(file, data)
        sync(file)
    finally:
        os.close(file)
    rename(made, path)


def sync_directory(directory: Path) -> None:
    """Names made or changed in it last. Where directories cannot be opened (Windows), that is left to the system."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
