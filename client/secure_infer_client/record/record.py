"""The record as it is written: opened once, appended to durably, by one process at a time."""

from __future__ import annotations

import hmac
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer_client import durable, locks
from secure_infer_client.providers import KeyProvider
from secure_infer_client.record import frames
from secure_infer_client.sealed import Lock, Secret

IDS = ("hashed", "plain")
ID_BYTES = 16
"""Of a keyed hash."""


@dataclass(frozen=True)
class About:
    """What a caller says of the calls it is about to make."""

    ids: tuple[str, ...] | None
    task: str | None


class Record:
    """Appends one entry a call: who, when, where, which model, how many rows, with what outcome; never a text.

    path: the file, made where there is none, readable by its owner. passphrase, provider: one of them opens it (`providers`).
    operator: who scores, as auditors will read it. ids: rows' ids as the caller gives them with `about`, "hashed" under the
    file's key (an id that is known can be looked up, none can be read) or "plain". answers: whether labels are kept.

    An entry is on the disk before the answer is handed out; where it cannot be written, the call fails with SettingsError.
    A torn entry, left by a process that was killed, is dropped when the file is opened, and an entry says so. Threads may
    share a record. Raises CannotUnlock for another passphrase and for a file that was changed, SettingsError for a file
    that another process writes to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        passphrase: str | None = None,
        *,
        provider: KeyProvider | None = None,
        operator: str,
        ids: str = "hashed",
        answers: bool = False,
    ) -> None:
        key = file_key(passphrase, provider)
        if not operator.strip():
            raise SettingsError("record: operator is empty; say who scores, as auditors will read it")
        if ids not in IDS:
            raise SettingsError(f"record: ids: expected one of {', '.join(IDS)}, got {ids!r}")
        self.path, self.operator, self.keeps_answers, self._plain = Path(path), operator, answers, ids == "plain"
        self._about: ContextVar[About | None] = ContextVar("about", default=None)
        self._turn = threading.Lock()
        self._process = os.getpid()
        new = None if self.path.exists() else Lock.new(key, frames.PURPOSE).header  # first: what is wrong makes no file
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._begin(key, new)
        except BaseException:
            os.close(self._file)
            raise
        locks.leave_in_children(self._leave)

    def _begin(self, key: Secret, new: bytes | None) -> None:
        if not locks.take(self._file):
            raise SettingsError(f"record: another process writes to {self.path}; give each process a record of its own")
        self._require_in_place()
        if not os.fstat(self._file).st_size:  # new; in place, and locked: processes that begin at once begin one file
            try:
                durable.write(self._file, new or Lock.new(key, frames.PURPOSE).header)
                durable.sync(self._file)
                durable.sync_directory(self.path.parent)
            except OSError as error:
                with suppress(OSError):
                    durable.cut(self._file, 0)
                raise self._unwritable(error) from error
        with open(self._file, "rb", closefd=False) as file:
            lock = Lock.of(frames.opened(file), key, frames.PURPOSE)
            self._ids, self._chain = lock.key(b"ids"), frames.Chain(lock)
            for _ in self._chain.walk(file):
                pass
            self._size = file.tell()
        torn = os.fstat(self._file).st_size - self._size
        if torn:
            self.append({"kind": "torn", "bytes": torn})

    @property
    def position(self) -> str:
        """ "SEQUENCE:HASH" of the last entry. Kept elsewhere, it lets `verify` see entries that were cut off."""
        return str(self._chain.position)

    @contextmanager
    def about(self, *, ids: Sequence[str] | None = None, task: str | None = None) -> Iterator[None]:
        """Calls made in here by this thread (or asyncio task) score the rows of these ids. task: what they are part of."""
        token = self._about.set(About(None if ids is None else tuple(map(str, ids)), task))
        try:
            yield
        finally:
            self._about.reset(token)

    def said(self, rows: int) -> dict[str, Any]:
        """What `about` says of a call on so many rows, as an entry holds it. Raises InvalidInput when ids do not match."""
        about = self._about.get()
        if about is None:
            return {}
        found: dict[str, Any] = {} if about.task is None else {"task": about.task}
        if about.ids is not None:
            if len(about.ids) != rows:
                raise InvalidInput(f"record: expected an id a row, {rows}, got {len(about.ids)}")
            kept = about.ids if self._plain else [id_hash(self._ids, one) for one in about.ids]
            found["ids" if self._plain else "id_hashes"] = list(kept)
        return found

    def append(self, fields: dict[str, Any]) -> None:
        """One entry more, on the disk when this returns. Raises SettingsError, and then nothing was added."""
        if self._process != os.getpid():
            raise SettingsError("this record was opened before a fork; open another file in the child process")
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = json.dumps({"time": when, "operator": self.operator, **fields}, separators=(",", ":")).encode()
        if len(message) > frames.LARGEST:
            raise SettingsError(f"record: expected an entry of at most {frames.LARGEST} bytes, got {len(message)}")
        with self._turn:
            if self._file < 0:
                raise SettingsError("this record is closed; open it again")
            self._require_in_place()
            data, after = self._chain.frame(message)
            try:
                durable.cut(self._file, self._size)  # what a write that failed left
                durable.write(self._file, data)
                durable.sync(self._file)
            except OSError as error:
                raise self._unwritable(error) from error
            self._chain.position, self._size = after, self._size + len(data)

    def _require_in_place(self) -> None:
        """Raise SettingsError where entries would go to a file that has lost its name."""
        if not locks.is_in_place(self._file, self.path):
            raise SettingsError(f"record: {self.path} was moved or replaced while it was written to; open it again")

    def _unwritable(self, error: OSError) -> SettingsError:
        return SettingsError(f"record: {self.path} cannot be written ({error.strerror})")

    def close(self) -> None:
        if self._process != os.getpid():
            return self._leave()
        with self._turn:
            if self._file >= 0:
                locks.let_go(self._file)
            self._leave()

    def _leave(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def file_key(passphrase: str | None, provider: KeyProvider | None) -> Secret:
    """The key that one of them makes; raises SettingsError for both and for none."""
    if passphrase is not None and provider is None:
        return passphrase
    if provider is not None and passphrase is None:
        return provider.key
    raise SettingsError("record: expected a passphrase or a provider, one of them")


def id_hash(key: bytes, one: str) -> str:
    """The keyed hash of a row's id, hex."""
    return hmac.digest(key, one.encode("utf-8", "surrogatepass"), "sha256")[:ID_BYTES].hex()
