"""All backends against one model of what a key store does, and cases that a model tells badly."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secure_infer.errors import MalformedRequest, ResourceExhausted, SecretKeyReceived, SecureInferError, SettingsError
from secure_infer_server.keys.backend import Backend
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import IDLE_SECONDS, KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.names import KeyName, Usage
from secure_infer_server.keys.redis_backend import RedisBackend, RedisSettings
from server.keys.stores import Clock, RedisServer, fine, name_of

LIMITS = KeyLimits(
    capacity=100, owner_bytes=60, owner_keys=4, expiry=1000, upload_bytes=80, owner_upload_bytes=60, upload_seconds=100
)
KINDS = ("memory", "disk", "redis")
OWNERS = ("alice", "bob", "carol")
BODIES = [bytes([number]) * (1 + 7 * number % 40) for number in range(12)]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


def make(kind: str, limits: KeyLimits, clock: Callable[[], float], stack: ExitStack, url: str = "") -> Backend:
    backend: Backend
    if kind == "memory":
        backend = MemoryBackend(limits, clock)
    elif kind == "disk":
        backend = DiskBackend(Path(stack.enter_context(TemporaryDirectory())), limits, clock)
    else:
        backend = RedisBackend(RedisSettings(url, prefix=secrets.token_hex(8)), limits, clock)
    stack.callback(backend.close)
    return backend


@pytest.fixture(params=KINDS)
def build(request: pytest.FixtureRequest) -> Iterator[Callable[..., Backend]]:
    """Makes backends of the kind: build(limits, clock)."""
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
    with ExitStack() as stack:
        yield lambda limits=LIMITS, clock=None: make(request.param, limits, clock or Clock(), stack, url)


def put(backend: Backend, name: KeyName, data: bytes) -> None:
    held = backend.begin(name, "model", len(data))
    backend.append(name, held, data[held:])
    backend.commit(name, fine)


class Reference:
    """What a key store does, as plainly as it can be said: lists, ordered by use."""

    def __init__(self) -> None:
        self.keys: list[tuple[KeyName, bytes, float]] = []
        self.uploads: list[tuple[KeyName, int, bytes, float]] = []

    def age(self, now: float) -> None:
        self.keys = [k for k in self.keys if k[2] > now - LIMITS.expiry]
        self.uploads = [u for u in self.uploads if u[3] > now - LIMITS.upload_seconds]

    def key(self, name: KeyName) -> bytes | None:
        return next((data for n, data, _ in self.keys if n == name), None)

    def upload(self, name: KeyName) -> tuple[int, bytes] | None:
        return next(((size, data) for n, size, data, _ in self.uploads if n == name), None)

    def own(self, owner: str) -> list[KeyName]:
        return [n for n, _, _ in self.keys if n.owner == owner]

    def use(self, name: KeyName, now: float) -> bytes | None:
        data = self.key(name)
        if data is not None:
            self.keys = [k for k in self.keys if k[0] != name] + [(name, data, now)]
        return data

    def begin(self, name: KeyName, size: int, now: float) -> int | None:
        """Bytes held; None for a refusal."""
        if size > min(LIMITS.owner_bytes, LIMITS.owner_upload_bytes):
            return None
        if self.key(name) is not None:
            return len(self.key(name) or b"")
        current = self.upload(name)
        if current is not None and current[0] == size:
            return len(current[1])
        uploads = [u for u in self.uploads if u[0] != name]

        def room(mine: bool) -> bool:
            of = [u for u in uploads if u[0].owner == name.owner] if mine else uploads
            most = LIMITS.owner_upload_bytes if mine else LIMITS.upload_bytes
            return sum(u[1] for u in of) + size <= most and (not mine or len(of) < LIMITS.owner_keys)

        for mine in (True, False):
            for upload in list(uploads):
                if not room(mine) and upload[3] <= now - IDLE_SECONDS and (upload[0].owner == name.owner or not mine):
                    uploads.remove(upload)
        if not (room(True) and room(False)):
            return None
        self.uploads = [*uploads, (name, size, b"", now)]
        return 0

    def append(self, name: KeyName, held: bytes, now: float) -> None:
        size = (self.upload(name) or (0, b""))[0]
        self.uploads = [u for u in self.uploads if u[0] != name] + [(name, size, held, now)]

    def drop_upload(self, name: KeyName) -> None:
        self.uploads = [u for u in self.uploads if u[0] != name]

    def commit(self, name: KeyName, data: bytes, now: float) -> None:
        self.drop_upload(name)

        def drop_until(fits: Callable[[], bool], owner: str | None) -> None:
            for key in list(self.keys):
                if not fits() and owner in (None, key[0].owner):
                    self.keys.remove(key)

        def total(owner: str | None) -> int:
            return sum(len(d) for n, d, _ in self.keys if owner in (None, n.owner)) + len(data)

        own = name.owner
        drop_until(lambda: total(own) <= LIMITS.owner_bytes and len(self.own(own)) < LIMITS.owner_keys, own)
        drop_until(lambda: total(None) <= LIMITS.capacity, None)
        self.keys.append((name, data, now))


class Machine(RuleBasedStateMachine):
    """One backend beside the reference. The clock moves in steps that no rule's few looks at it can blur."""

    kind, url = "memory", ""

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        self.clock, self.reference = Clock(), Reference()
        self.backend = make(self.kind, LIMITS, self.clock, self.stack, self.url)
        self.others: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    def now(self) -> float:
        self.clock.now = round(self.clock.now) + 1.0
        self.reference.age(self.clock.now)
        return self.clock.now

    @rule(seconds=st.sampled_from([10, 31, 101, 600]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES), size=st.sampled_from([0, 0, 0, 5, 61]))
    def begin(self, owner: str, body: bytes, size: int) -> None:
        now, name, size = self.now(), name_of(owner, body), size or len(body)
        expected = self.reference.begin(name, size, now)
        if expected is None:
            with pytest.raises(ResourceExhausted):
                self.backend.begin(name, "model", size)
        else:
            assert self.backend.begin(name, "model", size) == expected

    @rule(
        owner=st.sampled_from(OWNERS),
        body=st.sampled_from(BODIES),
        offset=st.integers(0, 12),
        count=st.integers(0, 40),
        rotten=st.sampled_from([False] * 7 + [True]),
    )
    def append(self, owner: str, body: bytes, offset: int, count: int, rotten: bool) -> None:
        now, name = self.now(), name_of(owner, body)
        data = bytes(255 - byte for byte in body[offset : offset + count]) if rotten else body[offset : offset + count]
        key, upload = self.reference.key(name), self.reference.upload(name)
        if key is not None:
            assert self.backend.append(name, offset, data) == len(key)
        elif upload is None or offset > len(upload[1]) or offset + len(data) > upload[0]:
            with pytest.raises(MalformedRequest):
                self.backend.append(name, offset, data)
        else:
            held = upload[1] + data[len(upload[1]) - offset :]
            self.reference.append(name, held, now)
            assert self.backend.append(name, offset, data) == len(held)

    @rule(owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES), refuse=st.sampled_from([False] * 5 + [True]))
    def commit(self, owner: str, body: bytes, refuse: bool) -> None:
        now, name = self.now(), name_of(owner, body)

        def check(data: bytes) -> None:
            if refuse:
                raise SecretKeyReceived("refused")

        key, upload = self.reference.key(name), self.reference.upload(name)
        if key is not None:
            self.backend.commit(name, check)
        elif upload is None or len(upload[1]) < upload[0]:
            with pytest.raises(MalformedRequest):
                self.backend.commit(name, check)
        elif refuse or upload[1] != body:
            with pytest.raises(MalformedRequest):
                self.backend.commit(name, check)
            self.reference.drop_upload(name)
        else:
            self.reference.commit(name, body, now)
            self.backend.commit(name, check)

    @rule(owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES))
    def whole(self, owner: str, body: bytes) -> None:
        """An upload from begin to commit, so that stores fill."""
        now, name = self.now(), name_of(owner, body)
        if self.reference.begin(name, len(body), now) is None:
            return
        held = self.backend.begin(name, "model", len(body))
        if self.reference.key(name) is not None:
            return
        sound = (self.reference.upload(name) or (0, b""))[1] == body[:held]
        self.backend.append(name, held, body[held:])
        if sound:
            self.reference.commit(name, body, now)
            self.backend.commit(name, fine)
        else:
            self.reference.drop_upload(name)
            with pytest.raises(MalformedRequest):
                self.backend.commit(name, fine)

    @rule(owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES), touch=st.booleans())
    def use(self, owner: str, body: bytes, touch: bool) -> None:
        now, name = self.now(), name_of(owner, body)
        expected = self.reference.use(name, now)
        if touch:
            assert self.backend.touch(name) == (expected is not None)
        else:
            assert self.backend.get(name) == expected

    @rule(owner=st.sampled_from(OWNERS), body=st.sampled_from(BODIES), upload=st.booleans())
    def drop(self, owner: str, body: bytes, upload: bool) -> None:
        self.now()
        name = name_of(owner, body)
        found = self.reference.key(name) is not None or self.reference.upload(name) is not None
        self.reference.drop_upload(name)
        if upload:
            self.backend.discard(name)
        else:
            assert self.backend.delete(name) == found
            self.reference.keys = [k for k in self.reference.keys if k[0] != name]

    @rule()
    def expire(self) -> None:
        self.now()
        self.backend.expire()

    @precondition(lambda self: self.kind == "disk")
    @rule()
    def restart(self) -> None:
        root = self.backend._files._blobs.parent  # type: ignore[attr-defined]
        self.backend.close()
        self.backend = DiskBackend(root, LIMITS, self.clock)
        self.stack.callback(self.backend.close)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "backend"):
            return
        self.now()
        for owner in OWNERS:
            held = self.backend.held(owner)
            assert [key.name for key in held] == self.reference.own(owner)
            assert [key.size for key in held] == [len(self.reference.key(key.name) or b"") for key in held]
            uploads = {u[0] for u in self.reference.uploads if u[0].owner == owner}
            assert set(self.backend.pending(owner)) == uploads
            assert self.backend.usage(owner).bytes == sum(key.size for key in held) <= LIMITS.owner_bytes
            for body in BODIES[:4]:
                name = name_of(owner, body)
                key, upload = self.reference.key(name), self.reference.upload(name)
                expected = (len(key), True) if key is not None else (len(upload[1]) if upload else 0, False)
                assert self.backend.progress(name) == expected
        keys, uploads = [d for _, d, _ in self.reference.keys], [u[1] for u in self.reference.uploads]
        assert self.backend.usage() == Usage(len(keys), sum(map(len, keys)), len(uploads), sum(uploads))


@pytest.mark.parametrize("kind", KINDS)
def test_backends_do_what_the_reference_does(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_server").url if kind == "redis" else ""
    machine: Any = type(f"Machine_{kind}", (Machine,), {"kind": kind, "url": url})
    rounds = {"memory": 60, "disk": 25, "redis": 25}[kind]
    case = machine.TestCase
    case.settings = settings(
        max_examples=rounds, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case("runTest").runTest()


def test_what_one_identity_has_is_nothing_to_another(build: Callable[..., Backend]) -> None:
    backend, body = build(), b"the very same bytes"
    put(backend, name_of("alice", body), body)
    mine = name_of("bob", body)
    assert backend.progress(mine) == (0, False)
    assert backend.get(mine) is None
    assert not backend.touch(mine)
    assert not backend.delete(mine)
    assert not backend.held("bob")
    assert backend.begin(mine, "model", len(body)) == 0  # all of it has to be sent
    with pytest.raises(MalformedRequest):
        backend.commit(mine, fine)
    assert backend.get(name_of("alice", body)) == body
    assert name_of("ab", b"") != name_of("a", b"b")


def test_one_identity_pushes_out_no_more_than_its_quota(build: Callable[..., Backend]) -> None:
    limits = KeyLimits(capacity=1000, owner_bytes=250, owner_keys=100, upload_bytes=250, owner_upload_bytes=250)
    backend = build(limits)
    others = [(f"owner {number}", bytes([number, n]) * 25) for number in range(5) for n in range(4)]
    for owner, body in others:
        put(backend, name_of(owner, body), body)
    assert backend.usage().bytes == 1000
    for number in range(60):
        put(backend, name_of("greedy", bytes([number]) * 50), bytes([number]) * 50)
    assert backend.usage("greedy").bytes == 250
    assert sum(len(body) for owner, body in others if backend.get(name_of(owner, body)) == body) == 750


def test_an_upload_goes_on_where_it_stopped(build: Callable[..., Backend]) -> None:
    backend, body = build(KeyLimits()), secrets.token_bytes(9 << 20)
    name = name_of("alice", body)
    assert backend.begin(name, "model", len(body)) == 0
    assert backend.append(name, 0, body[: 5 << 20]) == 5 << 20
    assert backend.begin(name, "model", len(body)) == 5 << 20
    assert backend.append(name, 4 << 20, body[4 << 20 :]) == len(body)  # what is held already is skipped
    backend.commit(name, fine)
    assert backend.get(name) == body


def test_a_refused_upload_leaves_the_one_under_way(build: Callable[..., Backend]) -> None:
    backend, body = build(), b"12345"
    name = name_of("alice", body)
    backend.begin(name, "model", len(body))
    backend.append(name, 0, body[:3])
    put(backend, name_of("bob", bytes(40)), bytes(40))
    backend.begin(name_of("carol", bytes(60)), "model", 60)
    with pytest.raises(ResourceExhausted):
        backend.begin(name, "model", 30)  # under the same name, of another size
    assert backend.progress(name) == (3, False)


def test_concurrent_uploads_of_one_key(build: Callable[..., Backend]) -> None:
    backend, body = build(KeyLimits()), secrets.token_bytes(1 << 20)
    name, failed, checked = name_of("alice", body), [], []

    def upload() -> None:
        try:
            at = backend.begin(name, "model", len(body))
            while at < len(body):
                backend.append(name, at, body[at : at + 65536])
                at += 65536
            backend.commit(name, checked.append)
        except SecureInferError as error:
            failed.append(error)

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert backend.get(name) == body
    assert {hashlib.sha256(data).digest() for data in checked} == {name.digest}
    assert backend.usage() == Usage(1, len(body), 0, 0)


def test_a_refused_upload_takes_no_later_one_of_its_name_along(build: Callable[..., Backend]) -> None:
    """It is deleted and sent anew while its check goes on, which then finds it wrong."""
    backend, name = build(KeyLimits()), name_of("alice", b"body")

    def refuse(_: bytes) -> None:
        backend.delete(name)
        backend.begin(name, "model", 4)
        backend.append(name, 0, b"bod")
        raise MalformedRequest("no")

    backend.begin(name, "model", 4)
    backend.append(name, 0, b"body")
    with pytest.raises(MalformedRequest, match="no"):
        backend.commit(name, refuse)
    assert backend.progress(name) == (3, False)
    backend.append(name, 3, b"y")
    backend.commit(name, fine)
    assert backend.get(name) == b"body"


def test_limits_are_checked() -> None:
    with pytest.raises(SettingsError, match="owner_bytes is at most capacity"):
        KeyLimits(capacity=10, owner_bytes=11)
    with pytest.raises(SettingsError, match="positive"):
        KeyLimits(expiry=0)
