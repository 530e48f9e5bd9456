"""One encrypted file that one process at a time holds: opaque bytes at rest.

    header   of `sealed.Lock`        8  generation, big-endian        sealed content, bound to header and generation

The generation counts writes. Who changes a byte is refused. A whole older file put back is noticed by the process that wrote
a newer one, and by a provider that remembers the generation (`providers`), and by nobody else: nothing in a file can tell that
there was a newer one.

A write is atomic and durable. What older files held may stay on the medium, encrypted. The lock is on a file beside the ring,
and ends with the process.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from secure_infer.errors import CannotUnlock, SettingsError
from secure_infer_client import durable, locks
from secure_infer_client.providers import KeyProvider, RemembersGeneration
from secure_infer_client.sealed import HEADER_BYTES, Lock, Secret

PURPOSE = b"key ring"
MAX_BYTES = 64 << 20
_GENERATION = struct.Struct(">Q")


class RingFile:
    """`path` held by this process, from `__init__` to `close`. secret: a passphrase or a provider. Not thread-safe.

    Raises SettingsError where the file is another user's, readable by others, a link, in use, or on a platform without POSIX
    locks and modes.
    """

    def __init__(self, path: Path, secret: str | KeyProvider) -> None:
        self.path = path
        self._secret = secret
        self._process = os.getpid()
        self._lock: Lock | None = None
        self._generation = 0
        """Of what this process read or wrote last."""
        self._held: int | None = _hold(path)
        locks.leave_in_children(self.close)

    def read(self) -> bytes | None:
        """The content, or None where there is no file yet. Raises CannotUnlock where it does not open or is too old."""
        data = _read_private(self.path)
        generation = 0
        content = None
        if data is not None:
            if self._lock is None or self._lock.header != data[:HEADER_BYTES]:
                self._lock = Lock.of(data[:HEADER_BYTES], _secret(self._secret), PURPOSE)
            bound = data[: HEADER_BYTES + _GENERATION.size]
            content = self._lock.open(data[len(bound) :], context=bound)
            (generation,) = _GENERATION.unpack(bound[HEADER_BYTES:])
        expected = self._latest()
        if generation < expected:
            raise CannotUnlock(
                f"key ring {self.path}: expected write {expected} or later, got {generation}: an older copy was put back, which "
                "may hold keys that were destroyed for a reason. Find out who did; `secure-infer keys delete --all` begins anew"
            )
        self._generation = generation
        return content

    def write(self, content: bytes) -> None:
        """Replace the content; durable when this returns. Raises SettingsError, and then the old content is still there."""
        self._require_own()
        if self._lock is None:
            self._lock = Lock.new(_secret(self._secret), PURPOSE)
        generation = self._latest() + 1
        bound = self._lock.header + _GENERATION.pack(generation)
        with suppress(FileNotFoundError):  # of a process that died writing it
            self.path.with_name(self.path.name + ".new").unlink()
        try:
            durable.replace(self.path, bound + self._lock.seal(content, context=bound))
        except OSError as error:
            raise SettingsError(f"key ring {self.path}: cannot be written ({error.strerror})") from error
        self._generation = generation
        if isinstance(self._secret, RemembersGeneration):
            self._secret.remember(generation)

    def ruin(self) -> None:
        """Make what is there unreadable, in place: for when it may not be read again and cannot be replaced.

        Needs no space on the disk. Raises SettingsError when even that fails.
        """
        self._require_own()
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.pwrite(file, bytes(os.fstat(file).st_size), 0)
                durable.sync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise SettingsError(f"key ring {self.path}: has to be deleted by hand, now ({error.strerror})") from error

    def change_secret(self, secret: str | KeyProvider, content: bytes) -> None:
        """`content` under another secret; as durable as `write`."""
        before = self._secret, self._lock
        self._secret, self._lock = secret, None
        try:
            self.write(content)
        except SettingsError:
            self._secret, self._lock = before
            raise

    def close(self) -> None:
        """Let another process have it. A forked child only gives its copy up: the lock is the parent's."""
        held, self._held = self._held, None
        if held is None:
            return
        if self._process == os.getpid():
            locks.let_go(held)
        os.close(held)

    def _latest(self) -> int:
        """The generation that is known to have been written."""
        remembered = self._secret.remembered() if isinstance(self._secret, RemembersGeneration) else 0
        return max(self._generation, remembered)

    def _require_own(self) -> None:
        if self._held is None or self._process != os.getpid():
            raise SettingsError(f"key ring {self.path}: it is not open in this process")


def _secret(secret: str | KeyProvider) -> Secret:
    return secret if isinstance(secret, str) else secret.key


def _hold(path: Path) -> int:
    """A descriptor of the lock file, locked."""
    if not locks.POSIX:
        raise SettingsError("key_ring: this platform has no POSIX file locks; keys stay in memory here")
    lock = path.with_name(path.name + ".lock")
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"key ring {path}: cannot be opened in its directory ({error.strerror})") from error
    if not locks.take(held):
        os.close(held)
        raise SettingsError(
            f"key ring {path}: it is in use. A ring serves one process at a time, so that none goes on with a key that another "
            "had to destroy: share one client between threads, or give each process a ring of its own"
        )
    return held


def _read_private(path: Path) -> bytes | None:
    """The bytes of a regular file of this user that nobody else may read; None where there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"key ring {path}: cannot be read ({error.strerror})") from error
    with os.fdopen(file, "rb") as opened:
        facts = os.fstat(opened.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise SettingsError(f"key ring {path}: expected a file of the user who runs this")
        if facts.st_mode & 0o077:
            raise SettingsError(
                f"key ring {path}: mode {stat.S_IMODE(facts.st_mode):04o}, so that others may read it; expected 0600. Find out "
                f"who could, then: chmod 600 {path}"
            )
        if facts.st_size > MAX_BYTES:
            raise CannotUnlock(f"key ring {path}: {facts.st_size} bytes; a ring has at most {MAX_BYTES}")
        return opened.read()
