"""Keys on disk: rows in SQLite say what there is, files hold the bytes. Survives the end of the process at any moment.

A key exists when its row does. On the way there: chunks go to a pending file; the whole file is synced and checked; one
transaction renames it, syncs the directories, and writes the row (SQLite's log synced with it). An end in between leaves a
file without a row, which the next start removes, and an upload whose file is gone, which begins again. The other way, rows
go first, then files. Rows of uploads are not synced: after a power cut an upload may begin again, or fail its check.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from secure_infer.errors import SecureInferError, SettingsError
from secure_infer_server.keys import disk_rows
from secure_infer_server.keys.backend import Check, beyond, gap, lost, missing, verify
from secure_infer_server.keys.disk_rows import DiskRows
from secure_infer_server.keys.files import BlobFiles, directories, require_private
from secure_infer_server.keys.limits import KeyLimits, check_size, keys_to_drop, uploads_to_drop
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey, Usage


def require_sound(root: Path) -> None:
    """Raise SettingsError for a directory that `DiskBackend` would not take. Nothing is made or changed."""
    for directory in directories(root):
        if directory.exists():
            require_private(directory)
    path = root / "keys.db"
    if path.exists() and not path.is_file():
        raise SettingsError(f"key store: {path} is not a file; move it away")
    if path.exists():
        try:
            version = disk_rows.version(path)
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from None
        disk_rows.require_version(path, version)


def _unusable(path: Path, error: Exception) -> SettingsError:
    return SettingsError(f"key store: cannot use {path}: {type(error).__name__}; move it away")


class DiskBackend:
    """See `Backend`. Any number of processes of one machine may share the directory; each makes its own instance.

    Raises SettingsError when the directory or its database cannot be used.
    """

    def __init__(self, root: Path, limits: KeyLimits, clock: Callable[[], float] = time.time) -> None:
        self._limits, self._clock = limits, clock
        self._files = BlobFiles(root)
        path = root / "keys.db"
        try:
            self._rows = DiskRows(path, limits, clock, self._files.remove)
            self.expire()
        except (sqlite3.DatabaseError, OSError) as error:
            self._files.close()
            raise _unusable(path, error) from None
        except SecureInferError:
            self._files.close()
            raise
        self._files.share()

    @property
    def failures(self) -> Mapping[str, int]:
        return self._rows.trouble.counts

    # Uploads.

    def begin(self, name: KeyName, model: str, size: int) -> int:
        check_size(self._limits, size)
        with self._rows.writing() as gone:
            key = self._rows.key(name)
            if key is not None:
                return key.size
            now, stale = self._clock(), self._rows.stale
            others = []
            for upload in self._rows.uploads("ORDER BY touched"):
                if upload.touched <= stale:
                    gone += self._rows.drop_upload(upload)
                elif upload.name != name:
                    others.append(upload)
                elif upload.size == size and self._files.holds(upload.place, upload.held):
                    return upload.held
                else:
                    gone += self._rows.drop_upload(upload)
            for upload in uploads_to_drop(self._limits, name, size, others, now):
                gone += self._rows.drop_upload(upload)
            row = (name.id, name.owner, name.plan, name.digest, model, size, 0, now, self._files.create())
            self._rows.execute("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            return 0

    def progress(self, name: KeyName) -> tuple[int, bool]:
        with self._rows.reading():
            # In this order: an upload that is gone by now is a key, or was dropped.
            upload, key = self._rows.upload(name), self._rows.key(name)
            if key is not None:
                return key.size, True
            return upload.held if upload and self._files.holds(upload.place, upload.held) else 0, False

    def append(self, name: KeyName, offset: int, data: bytes) -> int:
        with self._rows.writing():
            upload = self._rows.upload(name)
            if upload is None:
                key = self._rows.key(name)
                if key is None:
                    raise lost()
                return key.size
            if offset > upload.held:
                raise gap(upload.held, offset)
            if offset + len(data) > upload.size:
                raise beyond(upload.size)
            held = max(upload.held, offset + len(data))
            try:
                self._files.write(upload.place, upload.held, memoryview(data)[upload.held - offset :])
            except FileNotFoundError:
                raise lost() from None
            self._rows.execute("UPDATE uploads SET held = ?, touched = ? WHERE id = ?", (held, self._clock(), name.id))
            return held

    def commit(self, name: KeyName, check: Check) -> None:
        with self._rows.reading():
            upload = self._rows.upload(name)
            if self._rows.key(name) is not None:
                return
        if upload is None:
            raise lost()
        if upload.held < upload.size:
            raise missing(upload.size, upload.held)
        try:
            # Complete, so that nobody writes to it any more: what is checked is what is published.
            data = self._files.read_pending(upload.place, upload.size)
            verify(name, upload.size, data, check)
            self._publish(upload)
        except FileNotFoundError:
            # Another process dropped it, or is publishing it; whoever is at it is done once this one may write.
            self._discard(upload)
            with self._rows.reading():
                if self._rows.key(name) is None:
                    raise lost() from None
        except Exception:
            self._discard(upload)
            raise

    def _publish(self, upload: PendingKey) -> None:
        name, now = upload.name, self._clock()
        with self._rows.writing(durable=True) as gone:
            current = self._rows.upload(name)
            if current is None or current.place != upload.place:
                raise FileNotFoundError(upload.place)
            gone += self._rows.drop_expired()
            self._files.publish(upload.place)
            own = self._rows.keys("WHERE owner = ? ORDER BY used", name.owner)
            (total,) = self._rows.execute("SELECT TOTAL(size) FROM keys").fetchone()
            for key in keys_to_drop(
                self._limits, upload.size, own, int(total), lambda: self._rows.keys("ORDER BY used")
            ):
                gone += self._rows.drop_key(key)
            row = (name.id, name.owner, name.plan, name.digest, upload.model, upload.size, now, now, upload.place)
            self._rows.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._rows.execute("DELETE FROM uploads WHERE id = ?", (name.id,))

    def discard(self, name: KeyName) -> None:
        with self._rows.reading():
            upload = self._rows.upload(name)
        if upload is not None:
            self._discard(upload)

    def _discard(self, upload: PendingKey) -> None:
        """Drop that upload, and not a later one of its name."""
        with self._rows.writing() as gone:
            gone += self._rows.drop_upload(upload)

    # Keys.

    def get(self, name: KeyName) -> bytes | None:
        with self._rows.reading():
            key = self._rows.key(name)
        if key is None:
            return None
        data = self._files.read(key.place)
        if data is not None and hashlib.sha256(data).digest() == name.digest:
            return data if self.touch(name) else None
        with self._rows.writing(durable=True) as gone:  # rotten, or dropped meanwhile
            gone += self._rows.drop_key(key)
        return None

    def touch(self, name: KeyName) -> bool:
        with self._rows.writing():
            row = (self._clock(), name.id, self._rows.expired)
            return self._rows.execute("UPDATE keys SET used = ? WHERE id = ? AND used > ?", row).rowcount > 0

    def delete(self, name: KeyName) -> bool:
        with self._rows.writing(durable=True) as gone:
            key, upload = self._rows.key(name), self._rows.upload(name)
            gone += self._rows.drop_key(key) if key else []
            gone += self._rows.drop_upload(upload) if upload else []
            return bool(gone)

    def held(self, owner: str | None) -> list[HeldKey]:
        with self._rows.reading():
            if owner is None:
                return self._rows.keys("WHERE used > ? ORDER BY used", self._rows.expired)
            return self._rows.keys("WHERE owner = ? AND used > ? ORDER BY used", owner, self._rows.expired)

    def pending(self, owner: str) -> list[KeyName]:
        with self._rows.reading():
            uploads = self._rows.uploads("WHERE owner = ? AND touched > ? ORDER BY touched", owner, self._rows.stale)
            return [upload.name for upload in uploads]

    def expire(self) -> int:
        with self._rows.writing() as gone:
            keys = self._rows.drop_expired()
            stale = self._rows.stale
            for upload in self._rows.uploads("ORDER BY touched"):
                if upload.touched <= stale or not self._files.holds(upload.place, upload.held):
                    gone += self._rows.drop_upload(upload)
            gone += keys
        with self._rows.reading():
            known = {file for (file,) in self._rows.execute("SELECT file FROM keys UNION SELECT file FROM uploads")}
            self._files.sweep(known)
        return len(keys)

    def usage(self, owner: str | None = None) -> Usage:
        with self._rows.reading():
            keys = "SELECT COUNT(*), TOTAL(size) FROM keys WHERE used > ? AND (?2 IS NULL OR owner = ?2)"
            uploads = "SELECT COUNT(*), TOTAL(size) FROM uploads WHERE touched > ? AND (?2 IS NULL OR owner = ?2)"
            found = self._rows.execute(keys, (self._rows.expired, owner)).fetchone()
            found += self._rows.execute(uploads, (self._rows.stale, owner)).fetchone()
            return Usage(*map(int, found))

    def close(self) -> None:
        self._rows.close()
        self._files.close()
