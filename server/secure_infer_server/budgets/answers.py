"""Answers that were given, for identical requests: evaluating again would flood anew, and floods average out.

A request is found by identity and request id, and has to be identical (`fingerprint`). In memory the oldest go first, by age
and by bytes; a file, where there is one, keeps them over a restart. An answer that is forgotten is simply evaluated, and
charged, again. Answers are ciphertexts under the caller's key.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import time
from typing import Protocol

from secure_infer.errors import RequestIdReused
from secure_infer_server.budgets.fingerprint import KEY_BYTES
from secure_infer_server.budgets.ledger import connect

OVERHEAD = 512  # bytes of memory that an entry takes besides its answer
WAITING_BYTES = 64 << 20  # of answers on their way to the file; more are not kept there

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    identity TEXT NOT NULL, request BLOB NOT NULL, content BLOB NOT NULL, given REAL NOT NULL, answer BLOB NOT NULL,
    PRIMARY KEY (identity, request)
);
CREATE INDEX IF NOT EXISTS by_age ON answers (given);
CREATE TABLE IF NOT EXISTS fingerprints (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL);
"""
_DROP_OLDEST = "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers ORDER BY given LIMIT 64)"

Name = tuple[str, bytes]
"""Identity and request id."""


@dataclass(slots=True)
class Stored:
    """content: the request's fingerprint. given: seconds since 1970."""

    content: bytes
    answer: bytes
    given: float


class Shelf(Protocol):
    """Where answers are kept."""

    def get(self, name: Name) -> Stored | None: ...

    def put(self, name: Name, stored: Stored) -> None: ...

    def close(self) -> None: ...


class Memory:
    """At most `capacity` bytes, `seconds` old."""

    def __init__(self, capacity: int, seconds: float, clock: Callable[[], float] = time) -> None:
        self._capacity, self._seconds, self._clock = capacity, seconds, clock
        self._answers: OrderedDict[Name, Stored] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, name: Name) -> Stored | None:
        with self._lock:
            found = self._answers.get(name)
        return found if found is not None and found.given > self._clock() - self._seconds else None

    def put(self, name: Name, stored: Stored) -> None:
        oldest = self._clock() - self._seconds
        with self._lock:
            before = self._answers.pop(name, None)
            self._answers[name] = stored
            self._size += len(stored.answer) + OVERHEAD - (len(before.answer) + OVERHEAD if before else 0)
            while self._answers:
                first = next(iter(self._answers.values()))
                if self._size <= self._capacity and first.given > oldest:
                    break
                self._answers.popitem(last=False)
                self._size -= len(first.answer) + OVERHEAD

    def close(self) -> None:
        with self._lock:
            self._answers.clear()
            self._size = 0


class File:
    """An SQLite file of at most about `capacity` bytes, written by a thread of its own; processes may share it.

    key: of the fingerprints in it."""

    def __init__(self, path: Path, capacity: int, seconds: float, clock: Callable[[], float] = time) -> None:
        """Raises SettingsError."""
        self._capacity, self._seconds, self._clock = capacity, seconds, clock
        self._reader, self._writer = connect(path, "NORMAL"), connect(path, "NORMAL")
        self._writer.executescript(_SCHEMA)
        self.key = self._shared_key()
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[Name, Stored] | None] = SimpleQueue()
        self._bytes_waiting = 0
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def get(self, name: Name) -> Stored | None:
        query = "SELECT content, answer, given FROM answers WHERE identity = ? AND request = ? AND given > ?"
        # A file that cannot be read costs a second evaluation, which is charged.
        with self._lock, suppress(sqlite3.Error):
            row = self._reader.execute(query, (*name, self._clock() - self._seconds)).fetchone()
            return Stored(*row) if row else None
        return None

    def put(self, name: Name, stored: Stored) -> None:
        with self._lock:
            if self._bytes_waiting + len(stored.answer) > WAITING_BYTES:
                return
            self._bytes_waiting += len(stored.answer)
        self._waiting.put((name, stored))

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        with self._lock:
            self._reader.close()
        self._writer.close()

    def _shared_key(self) -> bytes:
        """Of whichever process was here first. Answers that are older than it were kept under none that is known."""
        write = self._writer.execute
        with self._writer:
            write("BEGIN IMMEDIATE")
            if write("INSERT OR IGNORE INTO fingerprints VALUES (1, ?)", (secrets.token_bytes(KEY_BYTES),)).rowcount:
                write("DELETE FROM answers")
        return bytes(write("SELECT key FROM fingerprints").fetchone()[0])

    def _work(self) -> None:
        while True:
            item = self._waiting.get()
            if item is None:
                return
            name, stored = item
            with suppress(sqlite3.Error):
                self._keep(name, stored)
            with self._lock:
                self._bytes_waiting -= len(stored.answer)

    def _keep(self, name: Name, stored: Stored) -> None:
        write = self._writer.execute
        with self._writer:
            write("BEGIN IMMEDIATE")
            write("DELETE FROM answers WHERE given <= ?", (self._clock() - self._seconds,))
            write(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
                (*name, stored.content, stored.given, stored.answer),
            )
        while self._size() > self._capacity:
            if not write(_DROP_OLDEST).rowcount:
                return

    def _size(self) -> int:
        used = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, "
        return int(self._writer.execute(used + "pragma_page_size").fetchone()[0])


class Answers:
    """Shelves, the quickest first."""

    def __init__(self, *shelves: Shelf, clock: Callable[[], float] = time) -> None:
        self._shelves, self._clock = shelves, clock

    def find(self, name: Name, content: bytes) -> bytes | None:
        """The answer to the identical request. Raises RequestIdReused for another one under that id."""
        for shelf in self._shelves:
            found = shelf.get(name)
            if found is not None:
                if found.content != content:
                    raise RequestIdReused(
                        "request id: used before for another request; give each request an id of its own "
                        "(16 random bytes), and keep it only to ask for the same answer again"
                    )
                return found.answer
        return None

    def keep(self, name: Name, content: bytes, answer: bytes) -> None:
        """Keep the first answer given to a request."""
        stored = Stored(content, answer, self._clock())
        for shelf in self._shelves:
            shelf.put(name, stored)

    def close(self) -> None:
        for shelf in self._shelves:
            shelf.close()
