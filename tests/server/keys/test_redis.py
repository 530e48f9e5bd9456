"""The Redis store against a real server: several servers at once, a server that goes away, and memory that it evicts."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator

import pytest

from secure_infer.errors import MissingExtra, ResourceExhausted, SecureInferError, ServerUnavailable, SettingsError
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.names import Usage
from secure_infer_server.keys.redis_backend import RedisBackend
from secure_infer_server.keys.redis_rows import PIECE, RedisSettings
from server.keys.stores import RedisServer, fine, name_of

BODY = secrets.token_bytes(PIECE + 1000)
NAME = name_of("alice", BODY)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


def store(server: RedisServer, **limits: float) -> RedisBackend:
    return RedisBackend(RedisSettings(server.url, timeout=1.0), KeyLimits(**limits))


def blobs(backend: RedisBackend) -> list[bytes]:
    return list(backend._client.scan_iter("*:blob:*"))


def put(backend: RedisBackend, owner: str, body: bytes) -> None:
    name = name_of(owner, body)
    held = backend.begin(name, "model", len(body))
    backend.append(name, held, body[held:])
    backend.commit(name, fine)


def test_one_server_begins_another_goes_on_a_third_reads(server: RedisServer) -> None:
    first, second, third = (store(server) for _ in range(3))
    first.begin(NAME, "model", len(BODY))
    first.append(NAME, 0, BODY[: PIECE - 10])
    assert second.begin(NAME, "model", len(BODY)) == PIECE - 10
    second.append(NAME, PIECE - 10, BODY[PIECE - 10 :])
    second.commit(NAME, fine)
    assert third.get(NAME) == BODY
    assert first.delete(NAME)
    assert third.get(NAME) is None
    assert not blobs(third)


def test_values_stay_small_and_have_times_to_live(server: RedisServer) -> None:
    backend = store(server, expiry=500, upload_seconds=50)
    client = backend._client
    backend.begin(NAME, "model", len(BODY))
    backend.append(NAME, 0, BODY)
    assert sorted(map(client.strlen, blobs(backend))) == [1000, PIECE]
    assert all(50 <= client.ttl(key) <= 110 for key in blobs(backend))
    backend.commit(NAME, fine)
    assert all(500 <= client.ttl(key) <= 560 for key in blobs(backend))


def test_servers_that_fill_it_at_once_keep_its_books(server: RedisServer) -> None:
    limits = {"capacity": 60_000, "owner_bytes": 20_000, "owner_keys": 8}
    stores, failed = [store(server, **limits) for _ in range(4)], []

    def fill(number: int) -> None:
        for step in range(15):
            try:
                put(stores[number], f"owner {(number + step) % 5}", secrets.token_bytes(2000 + 100 * step))
            except SecureInferError as error:
                failed.append(error)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    usage = stores[0].usage()
    assert usage.bytes == int(stores[0]._client.get(stores[0]._rows.at("bytes"))) <= 60_000
    assert usage.uploads == 0
    assert sum(len(stores[0].held(f"owner {n}")) for n in range(5)) == usage.keys
    assert len(blobs(stores[0])) == usage.keys


def test_a_server_that_is_away_is_said_in_time_and_found_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    backend = store(server)
    put(backend, "alice", BODY)
    server.kill()
    for call in (
        lambda: backend.get(NAME),
        lambda: backend.touch(NAME),
        lambda: backend.begin(NAME, "model", 5),
        lambda: backend.append(NAME, 0, b"x"),
        lambda: backend.commit(NAME, fine),
        lambda: backend.progress(NAME),
        lambda: backend.delete(NAME),
        lambda: backend.held("alice"),
        lambda: backend.expire(),
        lambda: backend.usage(),
        lambda: store(server),
    ):
        with pytest.raises(ServerUnavailable) as away:
            call()
        assert str(server.socket) not in away.value.message
    assert backend.failures == {"full": 0, "busy": 0, "away": 10}
    told = [record.message for record in caplog.records if "Redis" in record.message]
    assert told[:1] == ["key store: Redis does not answer (ConnectionError)"]
    assert len(told) == 2  # a line of each store
    server.start()  # without what it held: its keys count as evicted
    assert backend.get(NAME) is None
    put(backend, "alice", BODY)
    assert backend.get(NAME) == BODY


def test_a_server_that_hangs_is_said_in_time(server: RedisServer) -> None:
    backend = RedisBackend(RedisSettings(server.url, timeout=0.2), KeyLimits())
    server.pause()
    try:
        with pytest.raises(ServerUnavailable):
            backend.get(NAME)
    finally:
        server.resume()


def test_a_blob_that_redis_evicted_is_no_key(server: RedisServer) -> None:
    backend = store(server)
    put(backend, "alice", BODY)
    backend._client.delete(blobs(backend)[0])
    assert not backend.touch(NAME)
    assert backend.get(NAME) is None
    assert backend.usage() == Usage()


def test_redis_out_of_memory_is_said() -> None:
    server = RedisServer("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    try:
        backend = store(server)
        body = secrets.token_bytes(8 << 20)
        name = name_of("alice", body)
        backend.begin(name, "model", len(body))
        with pytest.raises(ResourceExhausted, match="out of memory"):
            for start in range(0, len(body), 1 << 20):
                backend.append(name, start, body[start : start + (1 << 20)])
        assert not backend.held("alice")
    finally:
        server.close()


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="begins with redis://"):
        RedisSettings("http://elsewhere")
    with pytest.raises(SettingsError, match="positive timeout"):
        RedisSettings("redis://here", timeout=0)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"secure-infer\[redis\]"):
        RedisBackend(RedisSettings("redis://here"), KeyLimits())
