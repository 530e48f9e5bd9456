"""Keys in Redis, for several servers behind one name. Whoever can write there can replace keys: guard it like a disk.

A chunk is added by one script; what makes or drops keys and uploads is one transaction, which decides again when another
server changed what it was decided on. `redis_rows` has the layout.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from secure_infer_server.keys.backend import Check, beyond, gap, lost, missing, verify
from secure_infer_server.keys.limits import KeyLimits, check_size, keys_to_drop, uploads_to_drop
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey, Usage
from secure_infer_server.keys.redis_rows import PIECE, SLACK_SECONDS, RedisRows, RedisSettings

# KEYS: held, touched. ARGV: offset, data, announced size, now, id, seconds to live, bytes of a piece, blob prefix.
_APPEND = """
local held = redis.call('GET', KEYS[1])
if not held then return {-1, 0} end
held = tonumber(held)
local offset, data, piece = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[7])
if offset > held then return {-2, held} end
if offset + #data > tonumber(ARGV[3]) then return {-3, held} end
local at = held - offset + 1
while at <= #data do
  local part = string.sub(data, at, at + piece - held % piece - 1)
  local blob = ARGV[8] .. string.format('%d', math.floor(held / piece))
  redis.call('APPEND', blob, part)
  redis.call('EXPIRE', blob, ARGV[6])
  held, at = held + #part, at + #part
end
redis.call('SET', KEYS[1], string.format('%d', held), 'EX', ARGV[6])
redis.call('ZADD', KEYS[2], 'XX', ARGV[4], ARGV[5])
return {0, held}
"""


class RedisBackend:
    """See `Backend`. Every method raises ServerUnavailable when Redis does not answer in time, the constructor too."""

    def __init__(self, settings: RedisSettings, limits: KeyLimits, clock: Callable[[], float] = time.time) -> None:
        self._rows, self._limits, self._clock = RedisRows(settings), limits, clock
        self._client = self._rows.client
        self._append: Any = self._client.register_script(_APPEND)
        self._upload_life = int(limits.upload_seconds) + SLACK_SECONDS
        with self._rows.catalogued():
            self._client.ping()

    @property
    def failures(self) -> Mapping[str, int]:
        return self._rows.trouble.counts

    # Uploads.

    def begin(self, name: KeyName, model: str, size: int) -> int:
        check_size(self._limits, size)
        rows = self._rows

        def decide(pipe: Any) -> Callable[[], int]:
            key, now = self._key(pipe, name), self._clock()
            if key is not None:
                return lambda: key.size
            uploads = rows.uploads(pipe)
            fresh = [upload for upload in uploads if self._is_fresh(upload)]
            current = next((u for u in fresh if u.name == name and u.size == size), None)
            if current is not None:
                return lambda: current.held
            others = [upload for upload in fresh if upload.name != name]
            gone = [upload for upload in uploads if upload not in others]
            gone += uploads_to_drop(self._limits, name, size, others, now)
            place = secrets.token_hex(16)

            def write() -> int:
                rows.drop_uploads(pipe, gone)
                pipe.hset(rows.at("uploads"), name.id, rows.record(name, model=model, size=size, place=place))
                pipe.zadd(rows.at("touched"), {name.id: now})
                pipe.set(rows.at("held", place), 0, ex=self._upload_life)
                return 0

            return write

        return rows.changing(decide)

    def progress(self, name: KeyName) -> tuple[int, bool]:
        with self._rows.catalogued():
            # In this order: an upload that is gone by now is a key, or was dropped.
            upload, key = self._upload(self._client, name), self._key(self._client, name)
            return (key.size, True) if key is not None else (upload.held if upload else 0, False)

    def append(self, name: KeyName, offset: int, data: bytes) -> int:
        with self._rows.catalogued():
            upload = self._upload(self._client, name)
            if upload is not None:
                code, held = self._append(
                    keys=[self._rows.at("held", upload.place), self._rows.at("touched")],
                    args=[
                        *(offset, data, upload.size, self._clock(), name.id, self._upload_life),
                        *(PIECE, self._rows.at("blob", upload.place, "")),
                    ],
                )
            if upload is None or code == -1:  # finished meanwhile, perhaps
                key = self._key(self._client, name)
                if key is None:
                    raise lost()
                return key.size
        if code == -2:
            raise gap(held, offset)
        if code == -3:
            raise beyond(upload.size)
        return int(held)

    def commit(self, name: KeyName, check: Check) -> None:
        with self._rows.catalogued():
            upload = self._upload(self._client, name)
            if self._key(self._client, name) is not None:
                return
            if upload is None:
                raise lost()
            if upload.held < upload.size:
                raise missing(upload.size, upload.held)
            data = self._rows.blob(upload.place, upload.size)  # complete, so that nobody adds to it
        try:
            verify(name, upload.size, data, check)
        except Exception:
            self._discard(name, upload.place)  # and not a later one of its name
            raise
        if not self._publish(upload):
            raise lost()

    def _publish(self, upload: PendingKey) -> bool:
        name, rows = upload.name, self._rows

        def decide(pipe: Any) -> Callable[[], bool]:
            if self._key(pipe, name) is not None:
                return lambda: True
            current, now = self._upload(pipe, name), self._clock()
            if current is None or current.place != upload.place:
                return lambda: False
            expired = rows.used_until(pipe, now - self._limits.expiry)
            own = [key for key in rows.owned(pipe, name.owner) if self._is_alive(key)]
            total = int(pipe.get(rows.at("bytes")) or 0) - sum(key.size for key in expired)

            def oldest() -> list[HeldKey]:
                return [key for key in rows.used_until(pipe, "+inf") if self._is_alive(key)]

            dropped = expired + keys_to_drop(self._limits, upload.size, own, total, oldest)
            record = rows.record(name, model=upload.model, size=upload.size, created=now, place=upload.place)

            def write() -> bool:
                rows.drop_keys(pipe, dropped)
                pipe.hset(rows.at("keys"), name.id, record)
                pipe.zadd(rows.at("used"), {name.id: now})
                pipe.sadd(rows.owned_at(name.owner), name.id)
                pipe.incrby(rows.at("bytes"), upload.size)
                pipe.hdel(rows.at("uploads"), name.id)
                pipe.zrem(rows.at("touched"), name.id)
                pipe.delete(rows.at("held", upload.place))
                rows.keep(pipe, upload.place, upload.size, self._limits.expiry)
                return True

            return write

        return rows.changing(decide)

    def discard(self, name: KeyName) -> None:
        self._discard(name)

    def _discard(self, name: KeyName, place: str | None = None) -> None:
        def decide(pipe: Any) -> Callable[[], None]:
            found = [upload for upload in self._rows.uploads(pipe) if upload.name == name]
            gone = [upload for upload in found if place in (None, upload.place)]
            return lambda: self._rows.drop_uploads(pipe, gone)

        self._rows.changing(decide)

    # Keys.

    def get(self, name: KeyName) -> bytes | None:
        with self._rows.catalogued():
            key = self._key(self._client, name)
            if key is None:
                return None
            data = self._rows.blob(key.place, key.size)
        if hashlib.sha256(data).digest() == name.digest:
            return data if self.touch(name) else None

        def decide(pipe: Any) -> Callable[[], None]:  # its blob is gone, or rotten
            current = self._key(pipe, name)
            same = [current] if current is not None and current.place == key.place else []
            return lambda: self._rows.drop_keys(pipe, same)

        self._rows.changing(decide)
        return None

    def touch(self, name: KeyName) -> bool:
        with self._rows.catalogued():
            key = self._key(self._client, name)
            if key is None:
                return False
            pipe = self._client.pipeline()
            pipe.zadd(self._rows.at("used"), {name.id: self._clock()}, xx=True)
            self._rows.keep(pipe, key.place, key.size, self._limits.expiry)
            return all(pipe.execute()[1:])

    def delete(self, name: KeyName) -> bool:
        def decide(pipe: Any) -> Callable[[], bool]:
            keys = [key for key in [self._rows.key(pipe, name)] if key is not None]
            uploads = [upload for upload in self._rows.uploads(pipe) if upload.name == name]
            found = any(map(self._is_alive, keys)) or any(map(self._is_fresh, uploads))

            def write() -> bool:
                self._rows.drop_keys(pipe, keys)
                self._rows.drop_uploads(pipe, uploads)
                return found

            return write

        return self._rows.changing(decide)

    def held(self, owner: str | None) -> list[HeldKey]:
        with self._rows.catalogued():
            return [key for key in self._every(owner) if self._is_alive(key)]

    def pending(self, owner: str) -> list[KeyName]:
        return [upload.name for upload in self._fresh() if upload.name.owner == owner]

    def expire(self) -> int:
        def decide(pipe: Any) -> Callable[[], int]:
            keys = self._rows.used_until(pipe, self._clock() - self._limits.expiry)
            uploads = [upload for upload in self._rows.uploads(pipe) if not self._is_fresh(upload)]

            def write() -> int:
                self._rows.drop_keys(pipe, keys)
                self._rows.drop_uploads(pipe, uploads)
                return len(keys)

            return write

        return self._rows.changing(decide)

    def usage(self, owner: str | None = None) -> Usage:
        with self._rows.catalogued():
            sizes = [key.size for key in self._every(owner) if self._is_alive(key)]
        uploads = [upload.size for upload in self._fresh() if owner in (None, upload.name.owner)]
        return Usage(len(sizes), sum(sizes), len(uploads), sum(uploads))

    def close(self) -> None:
        self._client.close()

    # What is past its time is as if it were gone.

    def _every(self, owner: str | None) -> list[HeldKey]:
        if owner is None:
            return self._rows.used_until(self._client, "+inf")
        return self._rows.owned(self._client, owner)

    def _is_alive(self, key: HeldKey) -> bool:
        return key.used > self._clock() - self._limits.expiry

    def _is_fresh(self, upload: PendingKey) -> bool:
        return upload.touched > self._clock() - self._limits.upload_seconds

    def _key(self, source: Any, name: KeyName) -> HeldKey | None:
        key = self._rows.key(source, name)
        return key if key is not None and self._is_alive(key) else None

    def _upload(self, source: Any, name: KeyName) -> PendingKey | None:
        upload = self._rows.upload(source, name)
        return upload if upload is not None and self._is_fresh(upload) else None

    def _fresh(self) -> list[PendingKey]:
        with self._rows.catalogued():
            return [upload for upload in self._rows.uploads(self._client) if self._is_fresh(upload)]
