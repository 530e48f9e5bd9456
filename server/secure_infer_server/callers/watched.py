"""Files that are read again when they change: what is wrong with a new one is logged once, and the old stays in force."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from secure_infer.errors import SecureInferError, SettingsError

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Stamp = tuple[tuple[str, int, int, int, int], ...]

INTERVAL = 1.0
"""Seconds between two looks of a `Watcher`, and until what failed is tried again."""


_every: WeakSet[Watched[Any]] = WeakSet()
_guard = threading.Lock()


def held_back() -> dict[str, bool]:
    """Whether what is in the files was not taken over, by what they are; of everything that this process watches."""
    with _guard:
        every = list(_every)
    found: dict[str, bool] = {}
    for watched in every:
        found[watched.what] = watched.failing or found.get(watched.what, False)
    return found


class Watched(Generic[Value]):
    """What `read()` made of some files. `value` is replaced as a whole, so that readers need no lock."""

    def __init__(self, what: str, read: Callable[[], Value], files: Callable[[], Iterable[Path]]) -> None:
        """Reads at once; raises what `read` raises. `what` names the files in the log, `files` lists them now."""
        self.what, self._read, self._files = what, read, files
        self._lock = threading.Lock()
        try:
            self._stamp = self._seen = self._stamped()
        except OSError as error:
            raise SettingsError(f"{what}: cannot be looked at ({error.strerror})") from error
        self._failure, self._again = "", 0.0
        self.value = read()
        with _guard:
            _every.add(self)

    @property
    def failing(self) -> bool:
        """Whether the files' last change is not in force, for what is wrong with them."""
        return bool(self._failure)

    def look(self) -> bool:
        """`refresh`, once two looks in a row have found the files the same: half of a policy may read as a whole one."""
        with suppress(OSError):  # which `refresh` tells of
            stamp = self._stamped()
            settled, self._seen = stamp == self._seen, stamp
            if not settled:
                return False
        return self.refresh()

    def refresh(self) -> bool:
        """Read again if a file was changed, replaced, added or removed; True when there is a new value.

        What failed is tried again now and then: it may be fine without a change, as a certificate once it is valid.
        """
        with self._lock:
            try:
                stamp = self._stamped()
            except OSError as error:
                return self._refuse(f"cannot be looked at ({error.strerror})")
            if stamp == self._stamp and (not self._failure or monotonic() < self._again):
                return False
            self._stamp = stamp
            try:
                value = self._read()
                if self._stamped() != stamp:
                    self._stamp = ()  # it goes on changing: the next look sees to it
                    return False
                self.value = value
            except SecureInferError as error:
                return self._refuse(error.message)
            except Exception as error:  # a refusal nobody foresaw must not end the watching
                return self._refuse(type(error).__name__)
            self._failure = ""
            log.info("%s: read again", self.what)
            return True

    def _refuse(self, failure: str) -> bool:
        if failure != self._failure:
            log.error("%s: not taken over, the earlier one stays in force: %s", self.what, failure)
        self._failure, self._again = failure, monotonic() + INTERVAL
        return False

    def _stamped(self) -> Stamp:
        return tuple(_stamp(path) for path in sorted(self._files()))


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0, 0
    return str(path), found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


class Watcher:
    """A thread that refreshes `Watched` files every `INTERVAL` seconds, so that no call waits for a file."""

    def __init__(
        self,
        watched: Iterable[Watched[Any]],
        interval: float = INTERVAL,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """changed: is told when there is a new value."""
        self._watched, self._interval, self._changed = tuple(watched), interval, changed
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(self._interval):
            try:
                if sum(watched.look() for watched in self._watched):
                    self._changed()
            except Exception:  # a deny list must go on being read
                log.exception("a look at files failed")
