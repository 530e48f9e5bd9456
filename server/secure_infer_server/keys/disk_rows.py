"""The database of `DiskBackend`: rows, and transactions that remove files once rows are gone."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secure_infer.errors import InternalFault, ResourceExhausted, SettingsError
from secure_infer_server.keys.backend import BUSY, FULL
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey
from secure_infer_server.trouble import Trouble

log = logging.getLogger(__name__)

VERSION = 1
BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE keys (id BLOB PRIMARY KEY, owner TEXT NOT NULL, plan BLOB NOT NULL, digest BLOB NOT NULL, model TEXT NOT NULL,
  size INTEGER NOT NULL, created REAL NOT NULL, used REAL NOT NULL, file TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX keys_by_owner ON keys (owner, used, size);
CREATE INDEX keys_by_use ON keys (used, size);
CREATE TABLE uploads (id BLOB PRIMARY KEY, owner TEXT NOT NULL, plan BLOB NOT NULL, digest BLOB NOT NULL, model TEXT NOT NULL,
  size INTEGER NOT NULL, held INTEGER NOT NULL, touched REAL NOT NULL, file TEXT NOT NULL) WITHOUT ROWID;
"""
_KEY = "SELECT owner, plan, digest, model, size, created, used, file FROM keys "
_UPLOAD = "SELECT owner, plan, digest, model, size, held, touched, file FROM uploads "


def version(path: Path) -> int:
    """Of the database's layout; 0 of one that has just begun. Nothing is written. Raises sqlite3.DatabaseError."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
    try:
        return int(database.execute("PRAGMA user_version").fetchone()[0])
    finally:
        database.close()


def require_version(path: Path, found: int) -> None:
    """Raise SettingsError for the layout of another program version."""
    if found not in (0, VERSION):
        raise SettingsError(f"key store: {path} has version {found}, expected {VERSION}; move it away")


class DiskRows:
    """Call nothing but `reading`, `writing` and `close` outside of them. `remove` gets files after their rows went.

    Raises sqlite3.DatabaseError or OSError when the file cannot be used, SettingsError when it is of another version.
    """

    def __init__(
        self, path: Path, limits: KeyLimits, clock: Callable[[], float], remove: Callable[[str], None]
    ) -> None:
        self._path, self._limits, self._clock, self._remove = path, limits, clock, remove
        self._process = os.getpid()
        self._lock = threading.RLock()
        self.trouble = Trouble(log, FULL, BUSY)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._rows = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self.execute = self._rows.execute
        self.execute("PRAGMA journal_mode = WAL")
        with self.writing(durable=True):
            (version,) = self.execute("PRAGMA user_version").fetchone()
            if not version:
                for statement in _SCHEMA.split(";"):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version = {VERSION}")
            else:
                require_version(path, version)

    def close(self) -> None:
        with self._lock:
            self._rows.close()

    @property
    def expired(self) -> float:
        """Keys used no later than that are past their time."""
        return self._clock() - self._limits.expiry

    @property
    def stale(self) -> float:
        """Uploads touched no later than that are past their time."""
        return self._clock() - self._limits.upload_seconds

    def key(self, name: KeyName) -> HeldKey | None:
        """The key, unless it expired."""
        found = self.keys("WHERE id = ? AND used > ?", name.id, self.expired)
        return found[0] if found else None

    def keys(self, where: str, *values: object) -> list[HeldKey]:
        return [HeldKey(KeyName(o, p, d), *rest) for o, p, d, *rest in self.execute(_KEY + where, values)]

    def upload(self, name: KeyName) -> PendingKey | None:
        """The upload, unless it is stale."""
        found = self.uploads("WHERE id = ? AND touched > ?", name.id, self.stale)
        return found[0] if found else None

    def uploads(self, where: str, *values: object) -> list[PendingKey]:
        return [PendingKey(KeyName(o, p, d), *rest) for o, p, d, *rest in self.execute(_UPLOAD + where, values)]

    def drop_expired(self) -> list[str]:
        """The files of keys past their time, whose rows are gone."""
        return [file for key in self.keys("WHERE used <= ?", self.expired) for file in self.drop_key(key)]

    def drop_key(self, key: HeldKey) -> list[str]:
        """The file to remove; none when the row went before, and the file with it."""
        row = (key.name.id, key.place)
        return [key.place] if self.execute("DELETE FROM keys WHERE id = ? AND file = ?", row).rowcount else []

    def drop_upload(self, upload: PendingKey) -> list[str]:
        """The file to remove; none when the row went before: the file may be a key's by now."""
        row = (upload.name.id, upload.place)
        return [upload.place] if self.execute("DELETE FROM uploads WHERE id = ? AND file = ?", row).rowcount else []

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._lock, self._catalogued():
            yield

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[list[str]]:
        """One transaction, the only one over all processes; the files put into its list are removed after it."""
        gone: list[str] = []
        with self._lock, self._catalogued():
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.execute("BEGIN IMMEDIATE")
            try:
                yield gone
                self.execute("COMMIT")
            except BaseException:
                if self._rows.in_transaction:
                    self.execute("ROLLBACK")
                raise
        for file in gone:
            self._remove(file)

    @contextmanager
    def _catalogued(self) -> Iterator[None]:
        if os.getpid() != self._process:
            raise InternalFault("key store: made before a fork; every process makes its own")
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise self._full() from None
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                self.trouble.meet(BUSY, f"key store: others kept its database for {BUSY_SECONDS:.0f} seconds")
                raise ResourceExhausted("key store: its disk is too busy; ask again shortly", again="shortly") from None
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full() from None
            raise

    def _full(self) -> ResourceExhausted:
        self.trouble.meet(FULL, f"key store: the disk of {self._path} is full: no client can upload keys")
        return ResourceExhausted("key store: its disk is full")
