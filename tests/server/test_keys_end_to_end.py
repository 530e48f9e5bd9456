"""Keys that last, from end to end: restarts, broken uploads, evictions, and tenants who are apart."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from secure_infer.errors import MalformedRequest, ResourceExhausted, ServerUnavailable, SettingsError
from secure_infer_client import Client
from secure_infer_client.keys import SecretKey
from secure_infer_client.local_server import LocalServer
from secure_infer_server.app import App
from secure_infer_server.callers import authority
from secure_infer_server.commands import certs
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.names import KeyName
from secure_infer_server.keys.settings import KeySettings
from secure_infer_server.models.registry import Registry
from secure_infer_server.settings import Settings, Tls
from secure_infer_server.workers.settings import WorkerSettings
from server.keys.raw import Tenant
from server.keys.stores import RedisServer
from shared import hidden_head, linear_head, unit_rows, until

HEADS = {"cheap": linear_head(8, 3), "slow": hidden_head((600, 4, 2))}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, head in HEADS.items():
        head.save(path / f"{name}.head")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(client: Client, count: int = 1) -> int:
    """Bytes of keys that it took to be answered rightly."""
    head = HEADS[client.spec.name]
    x = unit_rows(count, head.features)
    end = time.monotonic() + 20
    while True:
        try:
            found = client.predict(x)
            break
        except ServerUnavailable:  # it has just started again
            assert time.monotonic() < end
            time.sleep(0.1)
    bound = 0.1 if count > 100 else client.plan.error_bound
    assert np.abs(found - head.evaluate(x)).max() <= bound
    return client.last_call.stats.key_bytes


# Restarts.


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_asks_no_client_for_its_key(directory: Path, tmp_path: Path, how: signal.Signals) -> None:
    keys, listen = tmp_path / "keys", f"127.0.0.1:{free_port()}"
    options = ("--listen", listen, "--keys", str(keys), "--workers", "1", "--blinds-per-key", "4")
    server = LocalServer(directory, *options)
    with Client(listen, model="cheap") as cheap, Client(listen, model="slow") as slow:
        batch = cheap.batch_plans[0].records
        assert ask(cheap) > 0
        assert ask(slow) > 0
        assert ask(cheap, batch) > 0
        server.process.send_signal(how)
        server.process.wait(20)
        with LocalServer(directory, *options):
            assert [ask(cheap), ask(slow), ask(cheap, batch)] == [0, 0, 0]
        assert not list((keys / "pending").iterdir())


def test_a_restart_without_a_directory_costs_an_upload(directory: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with (
        LocalServer(directory, "--listen", listen, "--workers", "1") as server,
        Client(listen, model="cheap") as client,
    ):
        first = ask(client)
        assert first > 0
        server.process.kill()
        server.process.wait()
        with LocalServer(directory, "--listen", listen, "--workers", "1"):
            assert ask(client) == first
            assert ask(client) == 0


def test_several_servers_share_the_keys_in_redis(directory: Path, tmp_path: Path) -> None:
    redis, listen = RedisServer(), f"127.0.0.1:{free_port()}"
    (tmp_path / "url").write_text(redis.url + "\n")
    options = ("--listen", listen, "--keys-redis", str(tmp_path / "url"), "--workers", "1")
    try:
        with Client(listen, model="slow") as client:
            with LocalServer(directory, *options):
                assert ask(client) > 0
            with LocalServer(directory, *options):
                assert ask(client) == 0
    finally:
        redis.close()


# Broken uploads.


def test_a_broken_upload_goes_on_after_a_kill(directory: Path, tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    options = ("--listen", listen, "--keys", str(tmp_path / "keys"), "--workers", "1")
    model = Registry.load(Settings(directory, "127.0.0.1", 0, insecure=True)).get("slow")
    server = LocalServer(directory, *options)
    stop = threading.Event()
    with grpc.insecure_channel(listen) as channel:
        tenant = Tenant(listen, channel, model)

        def half() -> Iterator[object]:
            yield from tenant.messages(tenant.data[: len(tenant.data) // 2])
            stop.wait(30)

        call = tenant.keys.UploadKeys.future(half())
        until(lambda: tenant.held()[0] > 0)
        server.process.kill()
        server.process.wait()
        stop.set()
        assert call.exception(timeout=20) is not None
    with LocalServer(directory, *options), grpc.insecure_channel(listen) as channel:
        again = Tenant(listen, channel, model, tenant.key)
        held, complete = again.held()
        assert 0 < held <= len(tenant.data) // 2
        assert not complete
        with pytest.raises(MalformedRequest, match="are held, got some for offset"):
            again.upload(held + 1)
        again.upload(held)
        assert again.held() == (len(tenant.data), True)
        x = unit_rows(1, 600)
        assert np.abs(again.logits(x[0]) - HEADS["slow"].evaluate(x)[0]).max() <= again.plan.error_bound


# Evictions.


def served(directory: Path, **changed: object) -> tuple[App, str]:
    settings = Settings(
        directory, "127.0.0.1", 0, insecure=True, blinds_per_key=4, workers=WorkerSettings(count=1), **changed
    )
    app = App(settings)
    return app, app.start()


@pytest.mark.parametrize("model", list(HEADS))
def test_an_evicted_key_is_uploaded_again_by_itself(directory: Path, model: str) -> None:
    app, address = served(directory)
    try:
        with Client(address, model=model) as client:
            first = ask(client)
            assert ask(client) == 0
            assert app.front.clients.vault.delete("") == 1
            assert ask(client) == first
            assert ask(client) == 0
    finally:
        app.stop()


def test_a_store_that_is_full_drops_the_key_that_was_used_least_recently(directory: Path) -> None:
    plan = next(
        iter(Registry.load(Settings(directory, "127.0.0.1", 0, insecure=True)).get("cheap").offered.values())
    ).plan
    app, address = served(directory, keys=KeySettings(capacity=2 * plan.key_bytes))
    try:
        with Client(address, model="cheap") as one, Client(address, model="cheap") as two:
            with Client(address, model="cheap") as three:
                assert ask(one) == ask(two) == plan.key_bytes
                until(lambda: app.front.clients.vault.backend.usage().keys == 2)
                assert ask(three) == plan.key_bytes
            app.front.clients.vault._ready.drop(KeyName("", *key_of(one)))
            assert ask(one) == plan.key_bytes  # by itself
            assert app.front.clients.vault.backend.usage().keys == 2
    finally:
        app.stop()


def test_a_key_beyond_the_store_is_refused(directory: Path) -> None:
    app, address = served(directory, keys=KeySettings(capacity=100))
    try:
        with Client(address, model="cheap") as client, pytest.raises(ResourceExhausted, match="exceed the 100"):
            client.predict(unit_rows(1, 8))
    finally:
        app.stop()


def key_of(client: Client) -> tuple[bytes, bytes]:
    session = client._session
    ((plan, digest),) = session._secrets.uploaded
    return bytes.fromhex(plan), digest


# Tenants.


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certs")
    certs.make(path, ["localhost", "127.0.0.1"], "alice", 2)
    ca, key = authority.read_authority(path), authority.new_key()
    certs._write(path, "bob", ca.sign("client", "bob", [], key.public_key(), 2), key)
    return path


@pytest.fixture(scope="module")
def tenants(directory: Path, pki: Path) -> Iterator[tuple[App, str]]:
    tls = Tls(pki / "server.pem", pki / "server.key", pki / "ca.pem")
    app = App(Settings(directory, "127.0.0.1", 0, tls=tls, blinds_per_key=4, workers=WorkerSettings(count=1)))
    yield app, app.start()
    app.stop()


@pytest.fixture
def channels(tenants: tuple[App, str], pki: Path) -> Iterator[dict[str, grpc.Channel]]:
    root = (pki / "ca.pem").read_bytes()
    found = {}
    for name, files in (("alice", "client"), ("bob", "bob")):
        credentials = grpc.ssl_channel_credentials(
            root, (pki / f"{files}.key").read_bytes(), (pki / f"{files}.pem").read_bytes()
        )
        found[name] = grpc.secure_channel(tenants[1], credentials)
    yield found
    for channel in found.values():
        channel.close()


@pytest.mark.parametrize("name", list(HEADS))
def test_tenants_neither_see_nor_use_nor_delete_each_others_keys(
    tenants: tuple[App, str], channels: dict[str, grpc.Channel], name: str
) -> None:
    (app, address), head = tenants, HEADS[name]
    model, x = app.registry.get(name), unit_rows(1, head.features)
    alice = Tenant(address, channels["alice"], model)
    bob = Tenant(address, channels["bob"], model, alice.key)  # with the same bytes, should it upload them
    alice.upload()
    assert alice.digest in alice.listed()
    assert bob.held() == (0, False)
    assert bob.listed() == []
    assert bob.infer(x[0]).WhichOneof("result") == "unknown_key"
    assert (bob.delete(), bob.delete_all()) == (0, 0)
    assert alice.held() == (len(alice.data), True)

    with pytest.raises(MalformedRequest, match="0 bytes are held"):  # knowing the digest is not having the bytes
        bob.upload(len(bob.data))
    bob.upload()
    assert bob.listed() == [alice.digest]
    ids = {KeyName(f"cn:{who}", bytes.fromhex(alice.plan.digest), alice.digest).id for who in ("alice", "bob")}
    until(lambda: ids <= {tag[32:] for tag in app.blinds._stocks})
    for tenant in (alice, bob):
        assert np.abs(tenant.logits(x[0]) - head.evaluate(x)[0]).max() <= tenant.plan.error_bound
    assert bob.delete() == 1
    assert bob.infer(x[0]).WhichOneof("result") == "unknown_key"
    assert np.abs(alice.logits(x[0]) - head.evaluate(x)[0]).max() <= alice.plan.error_bound
    assert alice.delete_all() == 1


def test_batches_are_evaluated_under_their_callers_keys_alone(
    tenants: tuple[App, str], channels: dict[str, grpc.Channel]
) -> None:
    app, address = tenants
    model = app.registry.get("cheap")
    plan = next(iter(model.batches.values())).plan
    alice = Tenant(address, channels["alice"], model)
    alice.plan, alice.key = plan, SecretKey(plan.parameters)
    alice.data, alice.digest = alice.key.upload(plan).data, alice.key.upload(plan).digest
    alice.upload()
    bob = Tenant(address, channels["bob"], model)
    assert bob.batch_outcome(plan, alice.digest) == "unknown_key"
    with pytest.raises(MalformedRequest, match="ciphertexts, got 0"):  # it would be evaluated
        alice.batch_outcome(plan, alice.digest)


def test_quotas_are_an_owners_own(directory: Path, pki: Path) -> None:
    """A tenant at its limit pushes out its own keys."""
    limits = KeySettings(owner_keys=2)
    tls = Tls(pki / "server.pem", pki / "server.key", pki / "ca.pem")
    settings = Settings(
        directory, "127.0.0.1", 0, tls=tls, keys=limits, blinds_per_key=0, workers=WorkerSettings(count=0)
    )
    app = App(settings)
    address = app.start()
    try:
        root = (pki / "ca.pem").read_bytes()
        made = {}
        for name, files in (("alice", "client"), ("bob", "bob")):
            pair = (pki / f"{files}.key").read_bytes(), (pki / f"{files}.pem").read_bytes()
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(root, *pair))
            made[name] = [Tenant(address, channel, app.registry.get("cheap")) for _ in range(3)]
        made["bob"][0].upload()
        for tenant in made["alice"]:
            tenant.upload()
        assert made["alice"][0].listed() == [tenant.digest for tenant in made["alice"][1:]]
        assert made["bob"][0].listed() == [made["bob"][0].digest]
    finally:
        app.stop()


@pytest.mark.parametrize(("name", "pause"), [("cheap", 0.03), ("slow", 0.6)])
def test_a_client_whose_keys_are_deleted_again_and_again_is_answered(
    tenants: tuple[App, str], channels: dict[str, grpc.Channel], pki: Path, name: str, pause: float
) -> None:
    """By another one of its identity, at any moment: while they are sent, and between that and the query."""
    app, address = tenants
    other = Tenant(address, channels["alice"], app.registry.get(name))
    over = threading.Event()
    deleted: list[int] = []

    def delete() -> None:
        while not over.wait(pause):
            deleted.append(other.delete_all())

    deleting = threading.Thread(target=delete)
    pair = {"certificate_chain": pki / "client.pem", "private_key": pki / "client.key"}
    with Client(address, model=name, root_certificates=pki / "ca.pem", **pair) as client:
        deleting.start()
        try:
            while sum(deleted) < 8:
                ask(client)
        finally:
            over.set()
            deleting.join()


# Settings.


def test_limits_follow_memory_and_callers() -> None:
    nobody = KeySettings().limits(1 << 20, told_apart=False, in_memory=True)
    assert (nobody.capacity, nobody.owner_bytes, nobody.owner_upload_bytes) == (1 << 20,) * 3
    told = KeySettings().limits(1 << 20, told_apart=True, in_memory=False)
    assert told == KeyLimits()
    given = KeySettings(capacity=1 << 30, owner_keys=3, expiry=60.0, upload_bytes=1 << 20)
    assert given.limits(0, told_apart=True, in_memory=True) == KeyLimits(
        1 << 30, 1 << 28, 3, 60.0, upload_bytes=1 << 20, owner_upload_bytes=1 << 20
    )
    with pytest.raises(SettingsError, match="owner_keys"):
        KeySettings(owner_keys=0).limits(1 << 20, told_apart=True, in_memory=True)


def test_places_of_keys(tmp_path: Path) -> None:
    assert "memory" in KeySettings().place({})
    assert "Redis" in KeySettings().place({"SECURE_INFER_KEYS_REDIS_URL": "redis://localhost"})
    assert str(tmp_path) in KeySettings(tmp_path).place({"SECURE_INFER_KEYS_REDIS_URL": "redis://localhost"})
    with pytest.raises(SettingsError, match="one of them"):
        KeySettings(tmp_path, tmp_path / "url")
    with pytest.raises(SettingsError, match="cannot be read"):
        KeySettings(redis=tmp_path / "url").open(1 << 20, {}, told_apart=False)
