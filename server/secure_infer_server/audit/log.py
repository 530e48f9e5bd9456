"""The audit log as requests see it: an entry is put in a queue, and a thread writes what waits, together, within 100 ms.

    audit.check()          before a request is evaluated: refuses when entries could not be taken
    audit.record(event)    when it is over, before it is answered: microseconds, no file is touched

A request whose entry is not taken is not answered (AuditUnavailable). What a crash can lose: see `AuditSettings.commit`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic, sleep, time

from secure_infer.errors import AuditUnavailable, InternalFault
from secure_infer_server.audit import chain
from secure_infer_server.audit.event import Event
from secure_infer_server.audit.journal import Journal, Record
from secure_infer_server.audit.settings import AuditSettings, WhenFull

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Standing:
    """Where a log stands: (entries, hash of the last) of what is durable, and of what a signed checkpoint covers. key:
    fingerprint of the key that signs. waiting: entries that are not durable yet. failure: why it takes none, or ""."""

    head: tuple[int, str]
    checkpoint: tuple[int, str]
    key: str
    waiting: int
    failure: str


_Item = tuple[float, Event] | threading.Event | None


class AuditLog:
    """Safe to share between threads and tasks; of one process. `close` writes what waits."""

    def __init__(self, settings: AuditSettings) -> None:
        """Take up the log of the directory, or begin one. Raises SettingsError."""
        self._settings = settings
        self._journal = Journal(settings)
        self._head = self._signed = self._journal.position
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._waiting = 0  # entries that are not durable yet
        self._since = 0.0  # when the oldest of them was taken, or somewhat earlier
        self._failure = self._unsigned = ""  # of writing entries, of signing them
        self._closed = False
        self._process = os.getpid()
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise AuditUnavailable where an entry would not be taken now."""
        if os.getpid() != self._process:
            raise InternalFault("the audit log was used in a fork of the process that opened it")
        if self._closed or self._why:
            raise self._unavailable()
        if self._full and self._settings.when_full is WhenFull.REFUSE:
            raise self._unavailable()

    def record(self, event: Event) -> None:
        """Take an entry. Where the queue is full: as the operator chose, refuse or wait. Raises AuditUnavailable."""
        self.check()
        with self._room:
            if self._full:
                self._room.wait_for(lambda: self._closed or not self._full, self._settings.wait)
            if self._closed or self._full:
                raise self._unavailable()
            if not self._waiting:
                self._since = monotonic()
            self._waiting += 1
            self._queue.put((time(), event))

    async def arecord(self, event: Event) -> None:
        """As `record`, for an event loop: what waits, waits in a thread."""
        if self._full:
            await asyncio.to_thread(self.record, event)
        else:
            self.record(event)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded so far is durable; False when that takes longer."""
        done = threading.Event()
        with self._room:
            if self._closed:
                return not self._waiting
            self._queue.put(done)
        return done.wait(timeout)

    def close(self) -> None:
        """Write what waits, and a last checkpoint."""
        with self._room:
            if not self._closed:
                self._closed = True
                self._room.notify_all()
                self._queue.put(None)  # the last: whatever was taken stands before it
        self._thread.join()

    @property
    def standing(self) -> Standing:
        """As of now, or a moment ago."""
        return Standing(self._head, self._signed, self._journal.key, self._waiting, self._why)

    @property
    def failing(self) -> bool:
        """Whether its disk takes nothing; it is tried again by itself."""
        return bool(self._why)

    @property
    def waiting(self) -> int:
        """Entries that are not durable yet."""
        return self._waiting

    @property
    def lag(self) -> float:
        """Seconds since the oldest entry that is not durable was taken, about."""
        return monotonic() - self._since if self._waiting else 0.0

    @property
    def _why(self) -> str:
        """Why it takes no entries, or ""."""
        return self._failure or self._unsigned

    @property
    def _full(self) -> bool:
        return self._waiting >= self._settings.queue

    def _unavailable(self) -> AuditUnavailable:
        if self._closed:
            why = "it is closed: the server is stopping"
        else:
            why = self._why or f"{self._settings.queue} entries wait to be written"
        return AuditUnavailable(
            f"the audit log takes no entries ({why}); nothing is answered unrecorded. Try again later"
        )

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("audit log: its thread ended")
            self._failure = "its thread ended; the server has to be started again"

    def _work(self) -> None:
        items: list[_Item] = []
        first_unsigned: float | None = None
        stopping = False
        while not stopping:
            due = None if first_unsigned is None else first_unsigned + self._settings.checkpoint_seconds
            with suppress(Empty):
                items.append(self._queue.get(timeout=None if due is None else max(0.0, due - monotonic())))
                if isinstance(items[0], tuple):
                    sleep(self._settings.commit)  # whatever comes meanwhile shares one fsync
            with suppress(Empty):
                while True:
                    items.append(self._queue.get_nowait())
            taken = monotonic()
            stopping = None in items
            records = [_record(item) for item in items if isinstance(item, tuple)]
            self._commit(records, stopping)
            self._head = self._journal.position
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            items = []
            with self._room:
                self._waiting -= len(records)
                self._since = taken
                self._room.notify_all()
            first_unsigned = self._sign(first_unsigned)
        self._finish()

    def _commit(self, records: list[Record], stopping: bool) -> None:
        """Until it succeeds, or the server stops."""
        started = monotonic()
        while records:
            try:
                self._journal.write(records)
                self._failure = ""
                return
            except OSError as error:
                if not self._failure:
                    log.error("audit log: %d entries cannot be written (%s)", len(records), error.strerror)
                self._failure = f"its disk says: {error.strerror}"
            if stopping or (self._closed and monotonic() - started > CLOSE_SECONDS):
                log.error("audit log: %d entries are lost", len(records))
                return
            sleep(RETRY_SECONDS)

    def _sign(self, since: float | None) -> float | None:
        """Checkpoint where one is due; returns when the first entry without one was written."""
        if not (self._journal.unsigned or self._unsigned):
            return None
        now = monotonic()
        since = now if since is None else since
        enough = self._journal.unsigned >= self._settings.checkpoint_entries
        if not enough and now < since + self._settings.checkpoint_seconds:
            return since
        try:
            self._journal.checkpoint()
        except OSError as error:
            if not self._unsigned:
                log.error("audit log: no checkpoint can be written (%s)", error.strerror)
            # Entries may go on to a file that nobody finds any more.
            self._unsigned = f"no checkpoint can be written: {error.strerror}"
            return now  # and again when as much time has passed
        self._unsigned = ""
        self._head = self._signed = self._journal.position
        # Where logs are collected elsewhere, this line is a copy of the checkpoint that a cut log does not fit.
        log.info("audit checkpoint %d:%s", *self._journal.position)
        return None

    def _finish(self) -> None:
        try:
            self._journal.close()
            log.info("audit checkpoint %d:%s", *self._journal.position)
        except OSError as error:
            log.error("audit log: cannot be closed (%s)", error.strerror)


def _record(item: tuple[float, Event]) -> Record:
    return chain.CALL, item[0], item[1].members
