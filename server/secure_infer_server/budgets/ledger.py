"""What was debited, in SQLite: durable, and shared by processes that open the same file.

Debits come first: a block of records is written as spent before the first of them is. What of a block is never spent is lost
to its caller in a crash, and comes back otherwise. WAL with synchronous=FULL: a debit that returned survives a power cut.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from secure_infer.errors import BudgetUnavailable, SettingsError
from secure_infer_server.budgets.settings import MAX_RECORDS, Allowance
from secure_infer_server.trouble import Trouble

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0
SHARE = 16
"""A lease takes at most one part in so many of what is left, so that near the end other processes get some, too."""

Result = TypeVar("Result")
_TOTAL = -1  # in place of a day
_SCHEMA = """
CREATE TABLE IF NOT EXISTS debits (
    identity TEXT NOT NULL, model BLOB NOT NULL, day INTEGER NOT NULL, records INTEGER NOT NULL CHECK (records >= 0),
    PRIMARY KEY (identity, model, day)
) WITHOUT ROWID
"""
_ADD = "INSERT INTO debits VALUES (?, ?, ?, ?) ON CONFLICT (identity, model, day) DO UPDATE SET records = records + ?4"
_RETURN = "UPDATE debits SET records = max(0, records - ?4) WHERE identity = ?1 AND model = ?2 AND day = ?3"
_READ = "SELECT records FROM debits WHERE identity = ? AND model = ? AND day = ?"
_LIST = """
SELECT identity, model, SUM(records * (day = -1)), SUM(records * (day = ?1)) FROM debits
WHERE day IN (-1, ?1) AND (?2 IS NULL OR identity = ?2) GROUP BY identity, model ORDER BY 3 DESC, 1, 2 LIMIT ?3
"""
_OF = "FROM debits WHERE identity = ?1 AND (?2 IS NULL OR model = ?2)"

Key = tuple[str, bytes]
"""Identity, and digest of the model."""


@dataclass(frozen=True)
class Used:
    """Records debited, leases that are not spent yet among them. day: in the day asked for."""

    total: int
    day: int


@dataclass(frozen=True)
class Grant:
    """records: debited now; 0 when less than asked is left. total, daily: left before, of each limit."""

    records: int
    total: int
    daily: int

    @property
    def left(self) -> int:
        return min(self.total, self.daily) - self.records


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection in WAL mode, for one thread at a time; the file is readable by its owner only. Raises SettingsError."""
    try:
        path.touch(mode=0o600)
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
    except (OSError, sqlite3.Error) as error:
        raise _no_ledger(path, error) from error
    return database


def require_sound(path: Path) -> None:
    """Raise SettingsError for a file that is no ledger. Nothing is written, not even what a crash left to be written."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        try:
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise _no_ledger(path, error) from error


def _no_ledger(path: Path, error: Exception) -> SettingsError:
    return SettingsError(f"budgets: {path} cannot be opened as an SQLite file ({error})")


class Ledger:
    """Safe to share between threads; each call is one transaction and takes as long as the disk's."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path, self._trouble = path, Trouble(log, "unusable")
        if not path.exists():
            log.warning("budgets: %s is not there and is made: everybody begins at nothing", path)
        self._database = connect(path, "FULL")
        self._write(lambda: self._database.execute(_SCHEMA))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def lease(self, key: Key, allowance: Allowance, least: int, most: int, day: int) -> Grant:
        """Debit between `least` and `most` records, or none. Raises BudgetUnavailable."""

        def debit() -> Grant:
            used = self._used(key, day)
            total = MAX_RECORDS if allowance.total is None else max(0, allowance.total - used.total)
            daily = MAX_RECORDS if allowance.daily is None else max(0, allowance.daily - used.day)
            left = min(total, daily)
            records = 0 if left < least else max(least, min(most, left // SHARE))
            if records:
                for when in (_TOTAL, day):
                    self._database.execute(_ADD, (*key, when, records))
            return Grant(records, total, daily)

        return self._write(debit)

    def give_back(self, key: Key, records: int, day: int) -> None:
        """Undo a debit of that day in part. Raises BudgetUnavailable."""

        def undo() -> None:
            for when in (_TOTAL, day):
                self._database.execute(_RETURN, (*key, when, records))

        self._write(undo)

    def debit(self, keys: Collection[Key], records: int, day: int | None) -> None:
        """Add to what was ever debited for each, and on that day, or none; also beyond what is allowed. Raises
        BudgetUnavailable."""
        days = (_TOTAL,) if day is None else (_TOTAL, day)
        rows = [(*key, when, records) for key in keys for when in days]
        self._write(lambda: self._database.executemany(_ADD, rows))

    def used(self, key: Key, day: int) -> Used:
        """What was debited. Raises BudgetUnavailable."""
        with self._lock, self._reported():
            return self._used(key, day)

    def debits(self, identity: str | None, day: int, most: int) -> list[tuple[Key, Used]]:
        """What was debited of one identity's budgets, or of all; at most so many, the largest totals first."""
        with self._lock, self._reported():
            rows = self._database.execute(_LIST, (day, identity, most)).fetchall()
        return [((who, model), Used(total, today)) for who, model, total, today in rows]

    def reset(self, identity: str, model: bytes | None) -> int:
        """Forget what was debited, for one model or all; returns for how many. Raises BudgetUnavailable."""

        def forget() -> int:
            (count,) = self._database.execute(f"SELECT COUNT(DISTINCT model) {_OF}", (identity, model)).fetchone()
            self._database.execute(f"DELETE {_OF}", (identity, model))
            return int(count)

        return self._write(forget)

    def forget_before(self, day: int) -> None:
        """Drop the counts of earlier days; totals stay. Raises BudgetUnavailable."""
        self._write(lambda: self._database.execute("DELETE FROM debits WHERE day >= 0 AND day < ?", (day,)))

    def _used(self, key: Key, day: int) -> Used:
        found = [self._database.execute(_READ, (*key, when)).fetchone() for when in (_TOTAL, day)]
        return Used(*(row[0] if row else 0 for row in found))

    def _write(self, change: Callable[[], Result]) -> Result:
        with self._lock, self._reported():
            self._database.execute("BEGIN IMMEDIATE")  # from here on no other process reads what is about to change
            try:
                result = change()
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            return result

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # SQLite's words are of the disk or the schema: they hold no row's content.
            self._trouble.meet("unusable", f"budgets: {self._path} cannot be used ({error}): queries are refused")
            raise BudgetUnavailable(
                f"the ledger of budgets cannot be used ({type(error).__name__}); nothing is answered uncounted. "
                "Try again later, and tell the operator"
            ) from error
