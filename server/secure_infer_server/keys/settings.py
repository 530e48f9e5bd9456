"""Where a server keeps its clients' keys, and how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from secure_infer.errors import SettingsError
from secure_infer_server.keys.backend import Backend
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.redis_backend import RedisBackend
from secure_infer_server.keys.redis_rows import RedisSettings

VARIABLE = "SECURE_INFER_KEYS_REDIS_URL"
"""Holds Redis' URL, where neither a directory nor a file with the URL is named. No flag: a URL may hold a password."""
_LEAST_SHARE = 128 << 20
_ANY_NUMBER = 1 << 20


@dataclass(frozen=True)
class KeySettings:
    """directory: keys are kept on its disk. redis: a file with the URL of the Redis that keeps them. Neither: in memory, gone
    with the process. prefix: of the names in Redis. The rest as in `KeyLimits`; None: its default, or what memory and
    callers make of it (`limits`). Raises SettingsError."""

    directory: Path | None = None
    redis: Path | None = None
    prefix: str = RedisSettings.prefix
    capacity: int | None = None
    owner_bytes: int | None = None
    owner_keys: int | None = None
    expiry: float | None = None
    upload_bytes: int | None = None
    owner_upload_bytes: int | None = None
    upload_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.directory is not None and self.redis is not None:
            raise SettingsError("keys are kept in a directory or in Redis; give one of them")
        for each in fields(KeyLimits):
            value = getattr(self, each.name)
            if value is not None and not value > 0:
                raise SettingsError(f"key store: {each.name} has to be positive, got {value}")

    def at(self, directory: Path | None, redis: Path | None) -> KeySettings:
        """The same at the place that flags name; theirs where they name one. Raises SettingsError where they name two."""
        return self if directory is None and redis is None else replace(self, directory=directory, redis=redis)

    def limits(self, memory: int, *, told_apart: bool, in_memory: bool) -> KeyLimits:
        """memory: bytes for keys in memory. told_apart: whether callers are; else all of them are one owner."""
        capacity = self.capacity or (memory if in_memory else KeyLimits.capacity)
        uploads = self.upload_bytes or min(capacity, KeyLimits.upload_bytes)
        owner = {"owner_bytes": capacity, "owner_keys": _ANY_NUMBER, "owner_upload_bytes": uploads}
        if told_apart:
            share = max(capacity // 4, min(capacity, _LEAST_SHARE))
            owner_uploads = min(uploads, KeyLimits.owner_upload_bytes)
            owner = {"owner_bytes": share, "owner_keys": KeyLimits.owner_keys, "owner_upload_bytes": owner_uploads}
        limits = {"capacity": capacity, "upload_bytes": uploads} | owner
        given = {each.name: getattr(self, each.name) for each in fields(KeyLimits)}
        return KeyLimits(**(limits | {name: value for name, value in given.items() if value is not None}))

    def place(self, environment: Mapping[str, str]) -> str:
        """In words, without opening anything."""
        if self.directory is not None:
            return f"on disk in {self.directory}"
        return "in Redis" if self.redis is not None or environment.get(VARIABLE) else "in memory, gone with the process"

    def require_readable(self) -> None:
        """Raise SettingsError where the file with Redis' URL cannot be read. Nothing is asked of Redis."""
        if self.redis is not None:
            _read(self.redis)

    def open(self, memory: int, environment: Mapping[str, str], *, told_apart: bool) -> Backend:
        """Raises SettingsError for a place that cannot be used, ServerUnavailable when Redis is away, MissingExtra."""
        if self.directory is not None:
            return DiskBackend(self.directory, self.limits(memory, told_apart=told_apart, in_memory=False))
        url = environment.get(VARIABLE) if self.redis is None else _read(self.redis)
        if url:
            limits = self.limits(memory, told_apart=told_apart, in_memory=False)
            return RedisBackend(RedisSettings(url, self.prefix), limits)
        return MemoryBackend(self.limits(memory, told_apart=told_apart, in_memory=True))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"keys in Redis: {path} cannot be read ({type(error).__name__})") from None
