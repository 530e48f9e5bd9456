"""Files in memory, through which SEAL's objects pass: it loads and saves paths only.

Where a platform has no memory files, a temporary file serves.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
from pathlib import Path


class MemoryFile:
    """A file in memory (Linux), else a temporary file that is removed on close."""

    def __init__(self, in_memory: bool = sys.platform == "linux") -> None:
        self._named = not in_memory
        if in_memory:
            self._fd = os.memfd_create("secure-infer")
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="secure-infer-")

    def write(self, data: bytes) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.truncate(self._fd, 0)
        os.write(self._fd, data)

    def read(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, os.fstat(self._fd).st_size)

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._named:
            Path(self.path).unlink(missing_ok=True)


class KeptFile:
    """A mapped memory file that one thread of one process keeps: making one costs more than filling it.

    It is longer than what it holds; SEAL reads as far as a stream says it goes.
    """

    SIZE = 1 << 20
    _zeros = memoryview(bytes(SIZE))

    def __init__(self) -> None:
        self.process = os.getpid()
        self._fd = os.memfd_create("secure-infer")
        os.ftruncate(self._fd, self.SIZE)
        self.map, self._held = mmap.mmap(self._fd, self.SIZE), 0
        self.path = f"/proc/self/fd/{self._fd}"

    def write(self, data: bytes) -> None:
        self._held = len(data)
        self.map[: self._held] = data

    def __enter__(self) -> KeptFile:
        return self

    def __exit__(self, *_: object) -> None:
        # A client's input passes through here too, on its way into NTT form.
        self.map[: self._held] = self._zeros[: self._held]

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


_thread = threading.local()


def kept_file() -> KeptFile:
    """The calling thread's file."""
    file: KeptFile | None = getattr(_thread, "file", None)
    if file is None or file.process != os.getpid():  # a forked child's would be its parent's
        file = _thread.file = KeptFile()
    return file


def file_for(size: int) -> MemoryFile | KeptFile:
    """A file that SEAL loads `size` bytes from, empty again after its block; a thread has one such block at a time."""
    return kept_file() if sys.platform == "linux" and size <= KeptFile.SIZE else MemoryFile()
