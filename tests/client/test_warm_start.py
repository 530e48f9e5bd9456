"""A process with a warm key ring asks at once; one whose ring or server is not what it was finds its way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.parties import Parties
from secure_infer import cli
from secure_infer.errors import ModelChanged, SettingsError
from secure_infer.heads import Head
from secure_infer_client import Client, KeyRing
from secure_infer_client.providers import KeyFile
from secure_infer_server.app import App
from secure_infer_server.commands import certs
from secure_infer_server.settings import Settings, Tls
from shared import hidden_head, linear_head, unit_rows

X = unit_rows(2, 8)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))
    return KeyRing(tmp_path / "ring", provider=KeyFile(key))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    linear_head(8, 3).save(path / "linear.head")
    hidden_head((300, 4, 2)).save(path / "hidden.head")
    return path


@pytest.fixture
def served(directory: Path) -> Iterator[tuple[App, str]]:
    app = App(Settings(directory, "127.0.0.1", 0, blinds_per_key=4, insecure=True))
    yield app, app.start()
    app.stop()


def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], list[str]]:
    """Names of the calls that a client makes from now on."""

    def watch(client: Client) -> list[str]:
        calls: list[str] = []
        for stub in (client._session._models, client._session._keys, client._session._inference):  # type: ignore[union-attr]
            for name, method in list(vars(stub).items()):
                monkeypatch.setattr(stub, name, _named(calls, name, method))
        return calls

    return watch


def _named(calls: list[str], name: str, method: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        return method(*arguments, **named)

    return call


@pytest.mark.parametrize(("model", "features"), [("linear", 8), ("hidden", 300)])
def test_the_first_call_is_the_only_one(
    served: tuple[App, str], ring: KeyRing, model: str, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = unit_rows(1, features)
    with Client(served[1], model=model, key_ring=ring) as client:
        cold = asked(monkeypatch)(client)
        first = client.predict(x)
        assert cold == ["GetModel", "UploadKeys", "Infer"]
        assert client.last_call.stats.key_bytes == client.plan.key_bytes
    with Client(served[1], model=model, key_ring=ring) as client:
        warm = asked(monkeypatch)(client)
        assert np.abs(client.predict(x) - first).max() < 4e-3
        assert warm == ["Infer"]
        assert client.last_call.stats.key_bytes == 0


def test_a_server_that_forgot_the_key_is_sent_another(directory: Path, ring: KeyRing) -> None:
    head = Head.load(directory / "linear.head")
    app = App(Settings(directory, "127.0.0.1", 0, blinds_per_key=4, insecure=True))
    address = app.start()
    with Client(address, model="linear", key_ring=ring) as client:
        client.predict(X)
    app.stop()
    app = App(Settings(directory, "127.0.0.1", int(address.rpartition(":")[2]), blinds_per_key=4, insecure=True))
    app.start()
    try:
        for sent in (True, False):
            with Client(address, model="linear", key_ring=ring) as client:
                assert np.abs(client.predict(X) - head.evaluate(X)).max() <= client.plan.error_bound
                assert bool(client.last_call.stats.key_bytes) is sent
    finally:
        app.stop()


def test_a_model_stays_pinned_from_process_to_process(tmp_path: Path, ring: KeyRing) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    first, second = linear_head(8, 3, seed=1), linear_head(8, 3, seed=2)
    first.save(folder / "m.head")
    app = App(Settings(folder, "127.0.0.1", 0, insecure=True))
    address = app.start()
    with Client(address, model="m", key_ring=ring) as client:
        client.predict(X)
    app.stop()
    second.save(folder / "m.head")
    app = App(Settings(folder, "127.0.0.1", int(address.rpartition(":")[2]), insecure=True))
    app.start()
    try:
        for privacy in (None, "both-private"):  # asked for anew, or not
            with Client(address, model="m", key_ring=ring, privacy=privacy) as client, pytest.raises(ModelChanged):
                client.predict(X)
        with Client(address, model="m", key_ring=ring, accept_model=lambda _: True) as client:
            assert np.abs(client.predict(X) - second.evaluate(X)).max() <= client.plan.error_bound
        with Client(address, model="m", key_ring=ring) as client:
            client.predict(X)
    finally:
        app.stop()


def test_another_privacy_level_is_asked_for(served: tuple[App, str], ring: KeyRing) -> None:
    with Client(served[1], model="linear", key_ring=ring) as client:
        client.predict(X)
    with Client(served[1], model="linear", key_ring=ring, privacy="both-private") as client:
        client.predict(X)
        assert client.plan.privacy == "both-private"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certs")
    certs.make(path, ["localhost", "127.0.0.1"], "alice", 2)
    return path


@pytest.fixture(scope="module")
def known(directory: Path, pki: Path) -> Iterator[tuple[App, str]]:
    """A server that tells callers apart."""
    tls = Tls(pki / "server.pem", pki / "server.key", pki / "ca.pem")
    app = App(Settings(directory, "127.0.0.1", 0, tls=tls, blinds_per_key=4))
    yield app, app.start()
    app.stop()


def files(pki: Path) -> dict[str, Any]:
    return {
        "root_certificates": pki / "ca.pem",
        "private_key": pki / "client.key",
        "certificate_chain": pki / "client.pem",
    }


def held(app: App) -> int:
    return app.front.clients.vault.backend.usage().keys


def test_rotation_makes_new_keys_and_deletes_the_servers_old_ones(
    known: tuple[App, str], pki: Path, ring: KeyRing
) -> None:
    app, address = known
    others = held(app)
    with Client(address, model="linear", key_ring=ring, **files(pki)) as client:
        client.predict(X)
        before = client._session._secrets.uploaded  # type: ignore[union-attr]
        with ring:
            created = ring.facts(ring.names()[0])["keys"]
        assert held(app) == others + 1
        assert client.rotate_keys() == 1
        assert held(app) == others + 1
        after = client._session._secrets.uploaded  # type: ignore[union-attr]
        assert {plan for plan, _ in before} == {plan for plan, _ in after}
        assert before != after
        with ring:
            assert ring.facts(ring.names()[0])["keys"][0]["ring"] == created[0]["ring"]
        client.predict(X)
        assert client.last_call.stats.key_bytes == 0
        assert client.rotate_keys(renew=False) == 1
        assert held(app) == others
        client.predict(X)
        assert client.last_call.stats.key_bytes > 0


def test_rotation_at_a_server_that_tells_nobody_apart(served: tuple[App, str], ring: KeyRing) -> None:
    with Client(served[1], model="linear", key_ring=ring) as client:
        client.predict(X)
        seeds = {k: v.value for k, v in client._session._entry.state.seeds.items()}
        assert client.rotate_keys() == 0
        state = client._session._entry.state
        assert not {v.value for v in state.seeds.values()} & set(seeds.values())
        assert len(state.retired) == 1
        client.predict(X)


def test_rotation_without_a_server_is_made_good(directory: Path, ring: KeyRing) -> None:
    app = App(Settings(directory, "127.0.0.1", 0, insecure=True))
    address = app.start()
    with Client(address, model="linear", key_ring=ring, timeout=5) as client:
        client.predict(X)
        seeds = {k: v.value for k, v in client._session._entry.state.seeds.items()}
        app.stop()
        with pytest.raises(Exception, match="no server answers"):
            client.rotate_keys()
        state = client._session._entry.state
        assert len(state.retired) == 1
        assert not {v.value for v in state.seeds.values()} & set(seeds.values())


def test_the_command(
    known: tuple[App, str], pki: Path, ring: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app, address = known
    options = ["--key-ring", str(ring.path), "--key-ring-key", str(tmp_path / "key"), "--json"]
    for name, path in files(pki).items():
        options += [f"--{name.replace('_', '-')}", str(path)]
    np.save(tmp_path / "x.npy", X)

    def run(*arguments: str, status: int = 0) -> Any:
        assert cli.main([*arguments, *options]) == status, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    predict = ["predict", "--target", address, "--model", "linear", "--embeddings", str(tmp_path / "x.npy")]
    before = held(app)  # other tests' keys
    assert run(*predict)["stats"]["key_bytes"] > 0
    assert run(*predict)["stats"]["key_bytes"] == 0
    (entry,) = run("keys", "list")["entries"]
    assert (entry["model"], entry["targets"], entry["uploaded"], entry["refusals"]) == ("linear", [address], 1, 0)
    assert run("keys", "rotate")["entries"][0]["deleted"] == 1
    assert held(app) == before + 1
    assert run(*predict)["stats"]["key_bytes"] == 0
    (tmp_path / "pass").write_text("another passphrase\n")
    run("keys", "new-passphrase", "--new-passphrase-file", str(tmp_path / "pass"))
    assert cli.main(["keys", "list", *options]) == 1
    assert "CANNOT_UNLOCK" in capsys.readouterr().err
    options[2:4] = ["--key-ring-passphrase-file", str(tmp_path / "pass")]
    assert cli.main(["keys", "delete", *options]) == 2
    assert "say which" in capsys.readouterr().err
    assert cli.main(["keys", "rotate", "--model", "other", *options]) == 2
    assert "no entry" in capsys.readouterr().err
    assert run("keys", "delete", "--model", "linear")["entries"][0]["deleted"] == 1
    assert held(app) == before
    assert run("keys", "list")["entries"] == []
    run("keys", "delete", "--all")


def test_the_command_without_a_server(ring: KeyRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = ring.entry("ckks", ("127.0.0.1:1",), "m")
    with entry.changing() as state:
        state.uploaded["00" * 32] = "11" * 32
    entry.close()
    options = ["--key-ring", str(ring.path), "--key-ring-key", str(tmp_path / "key"), "--json", "--timeout", "2"]
    assert cli.main(["keys", "rotate", *options]) == 1
    (done,) = json.loads(capsys.readouterr().out)["entries"]
    assert "no server answers" in done["problem"]
    with ring:
        assert ring.facts(ring.names()[0])["retired"] == 1
    assert cli.main(["keys", "delete", "--model", "m", "--local", *options]) == 0
    assert cli.main(["keys", "list", "--key-ring", str(tmp_path / "none"), *options[2:]]) == 2


def test_two_clients_of_one_model_need_two_rings(served: tuple[App, str], ring: KeyRing) -> None:
    with (
        Client(served[1], model="linear", key_ring=ring),
        Client(served[1], model="hidden", key_ring=ring),
        pytest.raises(SettingsError, match="share that client"),
    ):
        Client(served[1], model="linear", key_ring=ring)


def test_two_parties_are_pinned_and_their_refusals_counted(ring: KeyRing) -> None:
    with Parties({"m": linear_head(8, 3)}) as parties:
        targets = tuple(parties.addresses)
        with Client(targets, model="m", scheme="mpc", key_ring=ring) as client:
            first = client.predict(X)
            assert client.rotate_keys() == 0
            client._session._entry.refuse()
        with Client(targets, model="m", scheme="mpc", key_ring=ring) as client:
            asked_for = len(parties.parties[0].seen)
            assert client._session._remembered() is not None  # type: ignore[union-attr]
            assert np.abs(client.predict(X) - first).max() < 1e-4
            assert len(parties.parties[0].seen) == asked_for + 1
            assert client._session._entry.state.refusals == 1
