"""The log's files as one thread writes them: append, fsync, checkpoint, rotate.

A write that fails leaves the chain where it was: the file is cut back to what was durable before the next attempt, since after
a failed fsync nobody knows what of it is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from time import time

from secure_infer import whole
from secure_infer.errors import SettingsError
from secure_infer_server.audit import chain, files, recovery, signing
from secure_infer_server.audit.chain import Chain
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.audit.signing import Signer

Record = tuple[str, float, chain.Fields]
"""Kind, seconds since 1970, fields."""


class Journal:
    """Not safe to share between threads."""

    def __init__(self, settings: AuditSettings) -> None:
        """Open the directory, which is made where there is none, and take up the log. Raises SettingsError."""
        self._settings = settings
        self.directory = settings.directory
        try:
            self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                self._begin()
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise SettingsError(f"audit log: {self.directory} cannot be written ({error.strerror})") from error

    def _begin(self) -> None:
        recovery.require_key(self._settings.key_file, self.directory)
        self._signer = Signer.of(self._settings.key_file)
        self._publish_key()
        resumed = recovery.resume(self.directory)
        self._chain, self.log = resumed.chain, resumed.log or secrets.token_hex(16)
        self._unsigned, self._head_due = 0, False
        self._open(max(1, resumed.segment))
        torn: list[Record] = [(chain.RECOVERED, time(), each) for each in resumed.torn]
        self.write([*torn, (chain.OPENED, time(), {"key": self._signer.fingerprint})])
        recovery.told(self.directory)
        self.checkpoint()

    @property
    def position(self) -> tuple[int, str]:
        """Entries so far, and the hash of the last."""
        return self._chain.sequence, self._chain.hash

    @property
    def key(self) -> str:
        """Fingerprint of the key that signs."""
        return self._signer.fingerprint

    @property
    def unsigned(self) -> int:
        """Entries since the last checkpoint."""
        return self._unsigned

    def write(self, records: Iterable[Record]) -> None:
        """Append entries, durably; all or none. Raises OSError."""
        if self._size and self._rotation_due():
            self.checkpoint()
            before = self._file
            self._open(self._number + 1)
            os.close(before)
        position, lines = self.position, []
        if not self._size:
            lines.append(self._chain.line(chain.SEGMENT, time(), {"log": self.log, "segment": self._number}))
        lines += [self._chain.line(*record) for record in records]
        try:
            self._append(b"".join(lines))
        except OSError:
            self._chain = Chain(*position)
            raise
        self._unsigned += len(lines)

    def checkpoint(self) -> None:
        """Sign all there is: in the log, then as its head. Raises OSError, also where the file was taken away or replaced; what
        is due is made up for by the next call."""
        self._require_in_place()
        if self._unsigned:
            sequence, digest = self.position
            signature = self._signer.sign(signing.CHECKPOINT, self.log, sequence, digest)
            said = {"log": self.log, "key": self._signer.fingerprint, "signature": signature}
            line = self._chain.line(chain.CHECKPOINT, time(), said)
            try:
                self._append(line)
            except OSError:
                self._chain = Chain(sequence, digest)
                raise
            self._unsigned, self._head_due = 0, True
        if self._head_due:  # after the log: a head is never ahead of what it signs
            sequence, digest = self.position
            head = {
                "log": self.log,
                "sequence": sequence,
                "hash": digest,
                "key": self._signer.fingerprint,
                "signature": self._signer.sign(signing.HEAD, self.log, sequence, digest),
            }
            files.replace(self.directory / files.HEAD, json.dumps(head).encode("ascii") + b"\n")
            self._head_due = False

    def close(self) -> None:
        """Say so, sign, and let go of the directory. Raises OSError."""
        try:
            self.write([(chain.CLOSED, time(), {})])
            self.checkpoint()
        finally:
            os.close(self._file)
            os.close(self._lock)

    def _locked(self) -> int:
        handle = os.open(self.directory / files.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise SettingsError(
                f"audit log: another process writes to {self.directory}; give each server process a directory of its own"
            ) from None
        return handle

    def _publish_key(self) -> None:
        path = self.directory / files.PUBLIC
        known = path.read_bytes() if path.exists() else b""
        if self._signer.public not in known:
            files.replace(path, known + self._signer.public)

    def _open(self, number: int) -> None:
        """Append to that segment from now on. Raises OSError, and then nothing has changed."""
        path = files.segment(self.directory, number)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            whole.sync_directory(self.directory)
            state = os.fstat(file)
        except OSError:
            os.close(file)
            raise
        self._file, self._number, self._size = file, number, state.st_size
        self._day = datetime.fromtimestamp(state.st_mtime, UTC).date()

    def _require_in_place(self) -> None:
        """What is appended to a file without its name, nobody reads."""
        path = files.segment(self.directory, self._number)
        if not os.path.samestat(path.stat(), os.fstat(self._file)):
            raise FileNotFoundError(errno.ENOENT, "its file was replaced", str(path))

    def _rotation_due(self) -> bool:
        if self._size >= self._settings.rotate_bytes:
            return True
        return self._settings.rotate_daily and datetime.now(UTC).date() != self._day

    def _append(self, data: bytes) -> None:
        os.ftruncate(self._file, self._size)
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], self._size + written)
        os.fsync(self._file)
        self._size += len(data)
