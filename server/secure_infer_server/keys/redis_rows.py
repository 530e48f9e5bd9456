"""What `RedisBackend` keeps in Redis: names, records, blobs, and how they change together.

    {prefix}:keys        hash: id -> JSON of a key          {prefix}:used      sorted set: id, by last use
    {prefix}:uploads     hash: id -> JSON of an upload      {prefix}:touched   sorted set: id, by last chunk
    {prefix}:owner:HASH  set: ids of an identity's keys     {prefix}:bytes     bytes of all keys
    {prefix}:held:PLACE  bytes held of an upload            {prefix}:blob:PLACE:I   the I-th `PIECE` bytes
    {prefix}:change      counts changes: who decided on what has changed since, decides again

Blobs carry times to live, so that their memory comes back when no server is left. The braces keep all of it on one node of
a cluster. Redis may run out of memory, or evict blobs (maxmemory-policy noeviction or volatile-lru), but not the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from secure_infer.errors import MissingExtra, ResourceExhausted, ServerUnavailable, SettingsError
from secure_infer_server.keys.backend import AWAY, BUSY, FULL
from secure_infer_server.keys.names import HeldKey, KeyName, PendingKey
from secure_infer_server.trouble import Trouble

log = logging.getLogger(__name__)

PIECE = 4 << 20
"""Bytes of a blob in one value."""
ATTEMPTS = 200
PAUSE = 0.005
SLACK_SECONDS = 60  # blobs outlive what names them

Result = TypeVar("Result")


@dataclass(frozen=True)
class RedisSettings:
    """url: redis://, rediss:// (TLS) or unix://, with the password if there is one. timeout: seconds for any answer."""

    url: str
    prefix: str = "secure-infer:keys"
    timeout: float = 2.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("redis://", "rediss://", "unix://")):
            raise SettingsError("key store: expected a URL that begins with redis://, rediss:// or unix://")
        if not self.timeout > 0:
            raise SettingsError(f"key store: expected a positive timeout, got {self.timeout}")


class RedisRows:
    """Reads go through a client, or through a pipeline that watches; drops go into a pipeline's transaction."""

    def __init__(self, settings: RedisSettings) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtra("keys in Redis need the extra `redis`: pip install 'secure-infer[redis]'") from None
        self._errors, self._prefix = redis.exceptions, f"{{{settings.prefix}}}"
        self.trouble = Trouble(log, FULL, BUSY, AWAY)
        try:
            # A connection that died while idle is worth a second try; all steps may be repeated.
            self.client: Any = redis.Redis.from_url(
                settings.url,
                socket_timeout=settings.timeout,
                socket_connect_timeout=settings.timeout,
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError:
            raise SettingsError("key store: the URL of Redis is malformed") from None

    def at(self, *parts: object) -> str:
        return ":".join(map(str, (self._prefix, *parts)))

    def owned_at(self, owner: str) -> str:
        return self.at("owner", hashlib.sha256(owner.encode()).hexdigest())

    def key(self, source: Any, name: KeyName) -> HeldKey | None:
        """The key, expired or not."""
        found = self._keys(source, [name.id])
        return found[0] if found else None

    def owned(self, source: Any, owner: str) -> list[HeldKey]:
        """An identity's keys, least recently used first."""
        ids = list(source.smembers(self.owned_at(owner)))
        return sorted(self._keys(source, ids), key=lambda key: key.used)

    def used_until(self, source: Any, until: float | str) -> list[HeldKey]:
        """The keys last used up to then, least recently used first."""
        return self._keys(source, source.zrangebyscore(self.at("used"), "-inf", until))

    def _keys(self, source: Any, ids: list[bytes]) -> list[HeldKey]:
        if not ids:
            return []
        found = []
        scores = source.zmscore(self.at("used"), ids)
        for record, used in zip(source.hmget(self.at("keys"), ids), scores, strict=True):
            if record is not None and used is not None:
                row = json.loads(record)
                found.append(HeldKey(_name(row), row["model"], row["size"], row["created"], used, row["place"]))
        return found

    def uploads(self, source: Any) -> list[PendingKey]:
        """Every upload, stalest first."""
        rows = [json.loads(record) for record in source.hvals(self.at("uploads"))]
        if not rows:
            return []
        names = [_name(row) for row in rows]
        touched = source.zmscore(self.at("touched"), [name.id for name in names])
        held = source.mget([self.at("held", row["place"]) for row in rows])
        # One whose count is gone outlived its time in Redis: `touched` 0 makes it stale here, too.
        found = [
            PendingKey(name, row["model"], row["size"], int(h or 0), (t or 0.0) if h is not None else 0.0, row["place"])
            for name, row, h, t in zip(names, rows, held, touched, strict=True)
        ]
        return sorted(found, key=lambda upload: upload.touched)

    def upload(self, source: Any, name: KeyName) -> PendingKey | None:
        """The upload, stale or not."""
        record = source.hget(self.at("uploads"), name.id)
        if record is None:
            return None
        row = json.loads(record)
        held, touched = source.get(self.at("held", row["place"])), source.zscore(self.at("touched"), name.id)
        if held is None or touched is None:
            return None
        return PendingKey(name, row["model"], row["size"], int(held), touched, row["place"])

    def record(self, name: KeyName, **fields: str | int | float) -> str:
        names = {"owner": name.owner, "plan": name.plan.hex(), "digest": name.digest.hex()}
        return json.dumps({**names, **fields})

    def blobs_at(self, place: str, size: int) -> list[str]:
        return [self.at("blob", place, index) for index in range((size + PIECE - 1) // PIECE)]

    def blob(self, place: str, size: int) -> bytes:
        """A blob's bytes, as far as they are there; one value an answer."""
        return b"".join(self.client.get(at) or b"" for at in self.blobs_at(place, size))

    def keep(self, pipe: Any, place: str, size: int, seconds: float) -> None:
        """Let a blob live for so long from now."""
        for at in self.blobs_at(place, size):
            pipe.expire(at, int(seconds) + SLACK_SECONDS)

    def drop_keys(self, pipe: Any, keys: Iterable[HeldKey]) -> None:
        for key in keys:
            pipe.hdel(self.at("keys"), key.name.id)
            pipe.zrem(self.at("used"), key.name.id)
            pipe.srem(self.owned_at(key.name.owner), key.name.id)
            pipe.decrby(self.at("bytes"), key.size)
            self._drop_blobs(pipe, key.place, key.size)

    def drop_uploads(self, pipe: Any, uploads: Iterable[PendingKey]) -> None:
        for upload in uploads:
            pipe.hdel(self.at("uploads"), upload.name.id)
            pipe.zrem(self.at("touched"), upload.name.id)
            pipe.delete(self.at("held", upload.place))
            self._drop_blobs(pipe, upload.place, upload.size)

    def _drop_blobs(self, pipe: Any, place: str, size: int) -> None:
        for at in self.blobs_at(place, size):
            pipe.unlink(at)

    def changing(self, decide: Callable[[Any], Callable[[], Result]]) -> Result:
        """One transaction: `decide` reads, and returns what writes. Repeated while others change what was read."""
        with self.catalogued():
            for _ in range(ATTEMPTS):
                with self.client.pipeline() as pipe:
                    pipe.watch(self.at("change"))
                    write = decide(pipe)
                    pipe.multi()
                    result = write()
                    # Nothing to write is a decision, too, and holds only if nothing changed while it was made.
                    (pipe.incr if len(pipe) else pipe.get)(self.at("change"))
                    try:
                        pipe.execute()
                        return result
                    except self._errors.WatchError:
                        time.sleep(PAUSE * (1 + secrets.randbelow(100)) / 100)
        self.trouble.meet(BUSY, f"key store: other servers changed it {ATTEMPTS} times while one change was decided")
        raise ResourceExhausted("key store: too many servers change it at once; ask again shortly", again="shortly")

    @contextmanager
    def catalogued(self) -> Iterator[None]:
        # The texts of Redis's errors may hold its address and user: they stay here.
        try:
            yield
        except (self._errors.ConnectionError, self._errors.TimeoutError) as error:
            self.trouble.meet(AWAY, f"key store: Redis does not answer ({type(error).__name__})")
            raise ServerUnavailable("the server's key store (Redis) does not answer; ask again later") from None
        except self._errors.OutOfMemoryError:
            self.trouble.meet(FULL, "key store: Redis is out of memory: no client can upload keys")
            raise ResourceExhausted("key store: Redis is out of memory; ask again shortly", again="shortly") from None


def _name(row: Mapping[str, str]) -> KeyName:
    return KeyName(row["owner"], bytes.fromhex(row["plan"]), bytes.fromhex(row["digest"]))
