"""The output while it grows: OUT.partial and OUT.rejected.partial, which are worth what OUT.checkpoint says of them.

A chunk is committed in this order: its answers and its rejected rows are appended and synced, then the checkpoint is
replaced. Whoever is killed before that has appended bytes which the next run cuts off; whoever is killed after it has
committed. At the end the checkpoint says `complete`, then the files get their names, OUT last, and the checkpoint goes: a
file OUT is always complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from secure_infer.errors import SettingsError
from secure_infer_client import durable, locks
from secure_infer_client.cohort.checkpoint import ANEW, Checkpoint


class Stage:
    """One run's hold on an output. checkpoint: where it stands. Raises SettingsError where another process is at work on
    it, where OUT is there already, and where the checkpoint is of another job."""

    def __init__(self, out: Path, job: dict[str, Any], *, header: bytes = b"", restart: bool = False) -> None:
        """header: what the staged answers begin with. job: as `Checkpoint`."""
        self.out = out
        self.rejected = out.with_name(out.name + ".rejected.jsonl")
        self.partial, self._rejected = (out.with_name(out.name + end) for end in (".partial", ".rejected.partial"))
        self._path, self._lock_path = (out.with_name(out.name + end) for end in (".checkpoint", ".lock"))
        self._header = header
        self._files: list[int] = []
        try:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(f"--out: {out} cannot be written ({error.strerror})") from error
        try:
            self._claim()
            if restart:
                self._discard()
            self.checkpoint = self._resumed(job)
        except OSError as error:
            self.close()
            raise SettingsError(f"--out: {out} cannot be written ({error.strerror})") from error
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        # Its holder may have removed it, between our opening and our locking it.
        if not locks.take(self._lock) or not locks.is_in_place(self._lock, self._lock_path):
            self._leave()
            raise SettingsError(f"--out: another process is writing {self.out}")
        locks.leave_in_children(self._leave)

    def _discard(self) -> None:
        for path in (self._path, self.partial, self._rejected, self.rejected, self.out):  # the checkpoint first
            path.unlink(missing_ok=True)

    def _resumed(self, job: dict[str, Any]) -> Checkpoint:
        found = Checkpoint.load(self._path)
        if found is None:
            for path in (self.out, self.rejected):
                if path.exists():
                    raise SettingsError(f"--out: {path} is there already; nothing was overwritten; {ANEW}")
            found = Checkpoint(job)
            found.save(self._path)
        else:
            found.check(job, self._path)
            found = replace(found, resumed=found.resumed + 1)
        if not found.complete:
            self._files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in (self.partial, self._rejected)]
            sizes = (found.out_bytes, found.rejected_bytes)
            for file, path, size in zip(self._files, (self.partial, self._rejected), sizes, strict=True):
                if os.fstat(file).st_size < size:
                    raise SettingsError(f"{path}: expected at least the {size} bytes that the checkpoint names; {ANEW}")
                durable.cut(file, size)
        return found

    def commit(self, answers: bytes, rejected: bytes, /, **changed: Any) -> None:
        """Append, and have it count. changed: the checkpoint's other fields. Raises SettingsError, and it does not count."""
        if not self.checkpoint.out_bytes:
            answers = self._header + answers
        try:
            for file, data in zip(self._files, (answers, rejected), strict=True):
                if data:
                    durable.write(file, data)
                    durable.sync(file)
            after = replace(
                self.checkpoint,
                out_bytes=self.checkpoint.out_bytes + len(answers),
                rejected_bytes=self.checkpoint.rejected_bytes + len(rejected),
                **changed,
            )
            after.save(self._path)
        except OSError as error:
            raise SettingsError(f"--out: {self.out} cannot be written ({error.strerror})") from error
        self.checkpoint = after

    def finish(self, convert: Callable[[Path, Path], None] | None = None) -> None:
        """Give the files their names. Whoever is killed in here is to call it again, with the checkpoint `complete`.

        convert: makes OUT, whole, from the staged answers; without it they are OUT.
        """
        for file in self._files:
            os.close(file)
        self._files = []
        try:
            if self._rejected.exists():
                if self.checkpoint.rejected_bytes:
                    durable.rename(self._rejected, self.rejected)
                else:
                    self._rejected.unlink()
            if self.partial.exists():
                if convert is None:
                    durable.rename(self.partial, self.out)
                else:
                    convert(self.partial, self.out)
                    self.partial.unlink()
            self._path.unlink(missing_ok=True)
            durable.sync_directory(self.out.parent)
        except OSError as error:
            raise SettingsError(f"--out: {self.out} cannot be written ({error.strerror})") from error

    def close(self) -> None:
        """Let go; what is not committed does not count."""
        for file in self._files:
            os.close(file)
        self._files = []
        if self._lock >= 0:
            if not self._path.exists():
                self._lock_path.unlink(missing_ok=True)
            locks.let_go(self._lock)
        self._leave()

    def _leave(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
