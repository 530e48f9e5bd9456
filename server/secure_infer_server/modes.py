"""Files that every user of a machine could read or change, by their modes; of a group's rights nothing is said."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_WRITE, _ANY = stat.S_IWOTH, stat.S_IRWXO


def warnings(secret: Iterable[Path | None], trusted: Iterable[Path | None]) -> Iterator[str]:
    """secret: files that the process's user alone should read. trusted: files and directories by which it decides. None, and what
    is not there, is passed over."""
    for path, mode in _present(secret):
        if mode & _ANY:
            yield f"{path} is a secret that every user of this machine can read (mode {mode:o}); chmod o= it"
    seen = set[Path]()
    for path, mode in _present(_with_directories(trusted)):
        if mode & _WRITE and not mode & stat.S_ISVTX and path not in seen:
            seen.add(path)
            yield f"every user of this machine can change {path} (mode {mode:o}); chmod o-w it"


def _with_directories(paths: Iterable[Path | None]) -> Iterator[Path | None]:
    """Who may write to a file's directory replaces the file."""
    for path in paths:
        yield path
        if path is not None:
            yield path.absolute().parent


def _present(paths: Iterable[Path | None]) -> Iterator[tuple[Path, int]]:
    """With their modes. What this user cannot look at is somebody else's to report: it cannot be used either."""
    for path in paths:
        if os.name == "posix" and path is not None:
            with suppress(OSError):
                yield path, stat.S_IMODE(path.stat().st_mode)
