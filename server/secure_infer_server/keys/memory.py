"""Keys in this process's memory: gone with it, which is right for a demo and for tests."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from secure_infer_server.keys.backend import Check, beyond, gap, lost, missing, verify
from secure_infer_server.keys.limits import KeyLimits, check_size, keys_to_drop, uploads_to_drop
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey, Usage


@dataclass
class _Upload:
    model: str
    size: int
    data: bytearray
    touched: float


class MemoryBackend:
    """See `Backend`. Both tables are ordered by last use, the stalest first."""

    def __init__(self, limits: KeyLimits, clock: Callable[[], float] = time.time) -> None:
        self._limits, self._clock = limits, clock
        self._keys: OrderedDict[KeyName, tuple[HeldKey, bytes]] = OrderedDict()
        self._uploads: OrderedDict[KeyName, _Upload] = OrderedDict()
        self._lock = threading.Lock()
        self.failures: Mapping[str, int] = {}

    def begin(self, name: KeyName, model: str, size: int) -> int:
        check_size(self._limits, size)
        with self._lock:
            self._expire()
            if name in self._keys:
                return self._keys[name][0].size
            upload, now = self._uploads.get(name), self._clock()
            if upload is None or upload.size != size:
                others = [(n, u) for n, u in self._uploads.items() if n != name]
                pending = [PendingKey(n, u.model, u.size, len(u.data), u.touched) for n, u in others]
                for stale in uploads_to_drop(self._limits, name, size, pending, now):  # a refusal leaves all as it was
                    del self._uploads[stale.name]
                self._uploads.pop(name, None)
                upload = self._uploads[name] = _Upload(model, size, bytearray(), now)
            return len(upload.data)

    def progress(self, name: KeyName) -> tuple[int, bool]:
        with self._lock:
            self._expire()
            if name in self._keys:
                return self._keys[name][0].size, True
            return len(self._uploads[name].data) if name in self._uploads else 0, False

    def append(self, name: KeyName, offset: int, data: bytes) -> int:
        with self._lock:
            self._expire()
            if name in self._keys:
                return self._keys[name][0].size
            upload = self._uploads.get(name)
            if upload is None:
                raise lost()
            if offset > len(upload.data):
                raise gap(len(upload.data), offset)
            if offset + len(data) > upload.size:
                raise beyond(upload.size)
            upload.data += data[len(upload.data) - offset :]
            upload.touched = self._clock()
            self._uploads.move_to_end(name)
            return len(upload.data)

    def commit(self, name: KeyName, check: Check) -> None:
        with self._lock:
            self._expire()
            if name in self._keys:
                return
            upload = self._uploads.get(name)
            if upload is None:
                raise lost()
            if len(upload.data) < upload.size:
                raise missing(upload.size, len(upload.data))
            data = bytes(upload.data)  # complete, so that nobody adds to it
        try:
            verify(name, upload.size, data, check)
        except Exception:
            with self._lock:
                if self._uploads.get(name) is upload:  # and not a later one of its name
                    del self._uploads[name]
            raise
        with self._lock:
            self._expire()
            if self._uploads.pop(name, None) is None and name not in self._keys:
                raise lost()
            if name in self._keys:
                return
            keys = [key for key, _ in self._keys.values()]
            own = [key for key in keys if key.name.owner == name.owner]
            for old in keys_to_drop(self._limits, upload.size, own, sum(key.size for key in keys), lambda: keys):
                del self._keys[old.name]
            now = self._clock()
            self._keys[name] = HeldKey(name, upload.model, upload.size, now, now), data

    def discard(self, name: KeyName) -> None:
        with self._lock:
            self._uploads.pop(name, None)

    def get(self, name: KeyName) -> bytes | None:
        with self._lock:
            if not self._used(name):
                return None
            data = self._keys[name][1]
        return data if hashlib.sha256(data).digest() == name.digest else None

    def touch(self, name: KeyName) -> bool:
        with self._lock:
            return self._used(name)

    def _used(self, name: KeyName) -> bool:
        self._expire()
        if name not in self._keys:
            return False
        key, data = self._keys[name]
        self._keys[name] = replace(key, used=self._clock()), data
        self._keys.move_to_end(name)
        return True

    def delete(self, name: KeyName) -> bool:
        with self._lock:
            self._expire()
            upload, key = self._uploads.pop(name, None), self._keys.pop(name, None)
            return upload is not None or key is not None

    def held(self, owner: str | None) -> list[HeldKey]:
        with self._lock:
            self._expire()
            return [key for key, _ in self._keys.values() if owner in (None, key.name.owner)]

    def pending(self, owner: str) -> list[KeyName]:
        with self._lock:
            self._expire()
            return [name for name in self._uploads if name.owner == owner]

    def expire(self) -> int:
        with self._lock:
            return self._expire()

    def _expire(self) -> int:
        now, dropped = self._clock(), 0
        while self._keys:
            name, (key, _) = next(iter(self._keys.items()))
            if key.used > now - self._limits.expiry:
                break
            del self._keys[name]
            dropped += 1
        while self._uploads:
            name, upload = next(iter(self._uploads.items()))
            if upload.touched > now - self._limits.upload_seconds:
                break
            del self._uploads[name]
        return dropped

    def usage(self, owner: str | None = None) -> Usage:
        with self._lock:
            self._expire()
            keys = [key.size for key, _ in self._keys.values() if owner in (None, key.name.owner)]
            uploads = [u.size for name, u in self._uploads.items() if owner in (None, name.owner)]
            return Usage(len(keys), sum(keys), len(uploads), sum(uploads))

    def close(self) -> None:
        """Nothing is open."""
