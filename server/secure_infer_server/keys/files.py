"""A directory of blobs: written under a name that nobody reads, synced, renamed; readable by this user alone.

lock        held by every process that uses the directory: shared, or alone while it sweeps
pending/    uploads under way, by random names
blobs/      whole keys, by the same names
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Set
from pathlib import Path

from secure_infer import whole
from secure_infer.errors import SettingsError

STALE_SECONDS = 3600.0
"""No commit takes so long: a file of that age that no row names is a remainder, whoever else is at work."""

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def directories(root: Path) -> tuple[Path, Path, Path]:
    """It, that of uploads under way, and that of whole keys."""
    return root, root / "pending", root / "blobs"


def require_private(directory: Path) -> None:
    """Raise SettingsError for a directory that others than its owner can enter."""
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise SettingsError(f"key store: expected {directory} to have mode 700, got {mode:o}; chmod it")


class BlobFiles:
    """Raises SettingsError when the directory cannot be had, or lets others in."""

    def __init__(self, root: Path) -> None:
        _, self._pending, self._blobs = directories(root)
        try:
            for directory in directories(root):
                directory.mkdir(mode=0o700, parents=directory is root, exist_ok=True)
                require_private(directory)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            raise SettingsError(f"key store: cannot use {root}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except BlockingIOError:
            self.alone = False
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def share(self) -> None:
        """Let other processes in, after the sweep of one that was `alone`."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self.alone = False

    def create(self) -> str:
        """A new empty pending file's name."""
        name = secrets.token_hex(16)
        os.close(os.open(self._pending / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600))
        return name

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes into a pending file."""
        file = os.open(self._pending / name, os.O_WRONLY | _FLAGS)
        try:
            rest = memoryview(data)
            while rest:
                written = os.pwrite(file, rest, offset)
                offset, rest = offset + written, rest[written:]
        finally:
            os.close(file)

    def holds(self, name: str, size: int) -> bool:
        """Whether a pending file is there, with at least `size` bytes."""
        try:
            return (self._pending / name).stat().st_size >= size
        except FileNotFoundError:
            return False

    def read_pending(self, name: str, size: int) -> bytes:
        """The first `size` bytes of a pending file, on the disk by then."""
        with (self._pending / name).open("rb") as file:
            os.fsync(file.fileno())
            return file.read(size)

    def publish(self, name: str) -> None:
        """A pending file becomes a blob, on the disk by then; a crash leaves one or the other."""
        (self._pending / name).rename(self._blobs / name)
        for directory in (self._blobs, self._pending):
            whole.sync_directory(directory)

    def read(self, name: str) -> bytes | None:
        """A blob; None when it is gone."""
        try:
            return (self._blobs / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """A blob or pending file; gone already is fine."""
        for directory in (self._blobs, self._pending):
            (directory / name).unlink(missing_ok=True)

    def sweep(self, known: Set[str]) -> int:
        """Remove files that no row names. Beside other processes only old ones: theirs may be about to get a row."""
        youngest = time.time() - (0.0 if self.alone else STALE_SECONDS)
        removed = 0
        for directory in (self._blobs, self._pending):
            for path in directory.iterdir():
                try:
                    if path.name not in known and (self.alone or path.stat().st_mtime < youngest):
                        path.unlink()
                        removed += 1
                except FileNotFoundError:  # another process was quicker
                    continue
        return removed

    def close(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
