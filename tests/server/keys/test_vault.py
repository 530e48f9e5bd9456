"""Keys from upload to evaluation: checked, loaded once, owned by one identity, gone when they are gone."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from secure_infer.ckks.plan import Plan
from secure_infer.errors import MalformedRequest, ResourceExhausted, SecretKeyReceived, ServerUnavailable
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.names import KeyName, Usage
from secure_infer_server.keys.screening import Screen
from secure_infer_server.keys.vault import PIECE, KeyVault, load_client_keys
from secure_infer_server.keystore import ClientKeys
from server.keys.material import Sample, another, sample
from server.keys.stores import Clock

MEMORY = 256 << 20


@pytest.fixture(scope="module")
def client() -> Sample:
    return sample()


@pytest.fixture
def vault() -> KeyVault[ClientKeys]:
    return KeyVault(MemoryBackend(KeyLimits()), load_client_keys, MEMORY)


def put(vault: KeyVault[ClientKeys], owner: str, client: Sample) -> ClientKeys | None:
    upload = vault.begin(owner, "model", client.plan, client.digest, len(client.data))
    upload.append(client.data)
    return upload.finish()


def stored(vault: KeyVault[ClientKeys], data: bytes) -> bool:
    """Whether any of the first polynomial's bytes are in the backend's memory."""
    uploads = vault.backend._uploads.values()  # type: ignore[attr-defined]
    return any(data[:64] in bytes(upload.data) for upload in uploads)


def test_an_uploaded_key_is_ready(vault: KeyVault[ClientKeys], client: Sample) -> None:
    keys = put(vault, "alice", client)
    assert keys is not None
    assert vault.ready("alice", client.plan, client.digest) is keys
    assert vault.lookup("alice", client.plan, client.digest) is keys
    assert put(vault, "alice", client) is None  # again: nothing happens
    assert vault.progress("alice", client.plan_digest, client.digest) == (len(client.data), True)


def test_a_key_that_is_deleted_while_it_is_loaded_is_gone(tmp_path: Path, client: Sample) -> None:
    """The query that had it loaded is answered; nothing is ready afterwards."""
    backend, loading, go = DiskBackend(tmp_path / "keys", KeyLimits()), threading.Event(), threading.Event()
    put(KeyVault(backend, load_client_keys, MEMORY), "alice", client)
    answers: list[object] = []

    def load(plan: Plan, data: bytes) -> tuple[bytes, int]:
        loading.set()
        assert go.wait(20)
        return data, len(data)

    vault = KeyVault(backend, load, MEMORY)
    query = threading.Thread(target=lambda: answers.append(vault.lookup("alice", client.plan, client.digest)))
    query.start()
    assert loading.wait(20)
    deletion = threading.Thread(target=lambda: answers.append(vault.delete("alice")))
    deletion.start()
    deletion.join(0.1)
    go.set()
    query.join()
    deletion.join()
    assert answers == [client.data, 1]
    assert vault.lookup("alice", client.plan, client.digest) is None
    assert vault.in_memory == (0, 0)


def test_another_identity_has_none_of_it(vault: KeyVault[ClientKeys], client: Sample) -> None:
    put(vault, "alice", client)
    assert vault.ready("bob", client.plan, client.digest) is None
    assert vault.lookup("bob", client.plan, client.digest) is None
    assert vault.begin("bob", "model", client.plan, client.digest, len(client.data)).held == 0
    assert vault.delete("bob") == 1  # the upload just begun
    assert vault.delete("bob", [(client.plan_digest, client.digest)]) == 0
    assert not vault.held("bob")
    put(vault, "bob", client)
    assert vault.delete("bob") == 1
    assert vault.lookup("alice", client.plan, client.digest) is not None


def test_a_broken_upload_goes_on_in_whole_polynomials(vault: KeyVault[ClientKeys], client: Sample) -> None:
    data, ends = client.data, Screen(client.plan).ends
    first = vault.begin("alice", "model", client.plan, client.digest, len(data))
    cut = ends[2] + 1000
    for start in range(0, cut, 777):
        first.append(data[start : min(cut, start + 777)])
    first.hold()
    held = vault.progress("alice", client.plan_digest, client.digest)
    assert held == (ends[2], False)
    again = vault.begin("alice", "model", client.plan, client.digest, len(data), offset=held[0])
    again.append(data[held[0] :])
    assert again.finish() is not None
    # A client that begins at 0 instead is fine, too; one that begins beyond is not.
    vault.delete("alice")
    vault.begin("alice", "model", client.plan, client.digest, len(data)).append(data[: PIECE + 5000])
    assert put(vault, "alice", client) is not None
    with pytest.raises(MalformedRequest, match="0 bytes are held"):
        vault.begin("bob", "model", client.plan, client.digest, len(data), offset=5)


def test_uploads_of_one_key_at_once(vault: KeyVault[ClientKeys], client: Sample) -> None:
    made: list[ClientKeys | None] = []
    threads = [threading.Thread(target=lambda: made.append(put(vault, "alice", client))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 5
    assert any(made)
    assert vault.backend.usage() == Usage(1, len(client.data), 0, 0)


def test_a_secret_is_refused_before_it_is_stored(vault: KeyVault[ClientKeys], client: Sample) -> None:
    data = client.with_secret_in_place_of_public_key()
    digest = hashlib.sha256(data).digest()
    assert len(data) == len(client.data)
    upload = vault.begin("alice", "model", client.plan, digest, len(data))
    upload.append(data[: PIECE - 1])  # the polynomial is there, and more
    assert not stored(vault, data)
    with pytest.raises(SecretKeyReceived, match="ternary"):
        upload.append(data[PIECE - 1 :])
    assert vault.backend.usage() == Usage()
    cut = vault.begin("alice", "model", client.plan, digest, len(data))
    cut.append(data[: Screen(client.plan).ends[1] - 1])  # the call breaks within the polynomial
    cut.hold()
    assert vault.progress("alice", client.plan_digest, digest) == (0, False)


def test_wrong_bytes_are_refused_and_dropped(vault: KeyVault[ClientKeys], client: Sample) -> None:
    changed = bytearray(client.data)
    changed[-1] ^= 1  # in a seed: any seed will do
    upload = vault.begin("alice", "model", client.plan, client.digest, len(changed))
    upload.append(bytes(changed))
    with pytest.raises(MalformedRequest, match="announced SHA-256"):
        upload.finish()
    residue = b"\xff" * 64 + client.data[64:]
    upload = vault.begin("alice", "model", client.plan, hashlib.sha256(residue).digest(), len(residue))
    with pytest.raises(MalformedRequest, match="below"):
        upload.append(residue)
    with pytest.raises(MalformedRequest, match="expected"):
        vault.begin("alice", "model", client.plan, client.digest, 17)
    short = vault.begin("alice", "model", client.plan, client.digest, len(client.data))
    short.append(client.data[:-1])
    with pytest.raises(MalformedRequest, match="announced, got"):
        short.finish()
    with pytest.raises(MalformedRequest, match="more than that"):
        short.append(b"ab")
    short.append(client.data[-1:])
    assert short.finish() is not None


def test_keys_are_loaded_again_after_a_restart_once(tmp_path: Path, client: Sample) -> None:
    loads = []

    def load(plan: Plan, data: bytes) -> tuple[ClientKeys, int]:
        loads.append(len(data))
        return load_client_keys(plan, data)

    first = KeyVault(DiskBackend(tmp_path / "keys", KeyLimits()), load, MEMORY)
    put(first, "alice", client)
    first.close()
    again = KeyVault(DiskBackend(tmp_path / "keys", KeyLimits()), load, MEMORY)
    again.start()
    assert again.ready("alice", client.plan, client.digest) is None
    found: list[ClientKeys | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(again.lookup("alice", client.plan, client.digest)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in found
    assert len({id(keys) for keys in found}) == 1
    assert len(loads) == 2
    assert not again._locks
    again.close()


def test_a_key_that_cannot_be_loaded_counts_as_evicted(client: Sample) -> None:
    backend = MemoryBackend(KeyLimits())
    put(KeyVault(backend, load_client_keys, MEMORY), "alice", client)

    def refuse(plan: Plan, data: bytes) -> tuple[ClientKeys, int]:
        raise MalformedRequest("of another version")

    vault = KeyVault(backend, refuse, MEMORY)
    assert vault.lookup("alice", client.plan, client.digest) is None
    assert backend.usage() == Usage()


def test_memory_is_bounded_and_what_it_drops_is_loaded_again(client: Sample) -> None:
    other = another(client)
    size = load_client_keys(client.plan, client.data)[1]
    vault = KeyVault(MemoryBackend(KeyLimits()), load_client_keys, size + 10)
    put(vault, "alice", client)
    put(vault, "alice", other)
    assert vault.ready("alice", client.plan, client.digest) is None
    assert vault.lookup("alice", client.plan, client.digest) is not None
    assert vault.ready("alice", other.plan, other.digest) is None
    small = KeyVault(MemoryBackend(KeyLimits()), load_client_keys, size - 1)
    with pytest.raises(ResourceExhausted, match="kept ready"):
        put(small, "alice", client)
    assert small.backend.usage() == Usage()


def test_what_another_server_deleted_is_gone_within_the_time(client: Sample) -> None:
    backend, clock = MemoryBackend(KeyLimits()), Clock()
    gone: list[list[KeyName]] = [[], []]
    one, two = (KeyVault(backend, load_client_keys, MEMORY, confirm=60, clock=clock, gone=told.append) for told in gone)
    put(one, "alice", client)
    assert two.lookup("alice", client.plan, client.digest) is not None
    assert one.delete("alice", [(client.plan_digest, client.digest)]) == 1
    assert one.lookup("alice", client.plan, client.digest) is None
    clock.now += 61
    assert two.ready("alice", client.plan, client.digest) is None
    assert two.lookup("alice", client.plan, client.digest) is None
    assert gone == [[KeyName("alice", client.plan_digest, client.digest)]] * 2


def test_while_the_store_is_away_what_is_ready_stays_in_use(client: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, clock = MemoryBackend(KeyLimits()), Clock()
    vault = KeyVault(backend, load_client_keys, MEMORY, confirm=60, clock=clock)
    put(vault, "alice", client)

    def away(*_: object) -> bool:
        raise ServerUnavailable("away")

    monkeypatch.setattr(backend, "touch", away)
    monkeypatch.setattr(backend, "get", away)
    clock.now += 61
    assert vault.lookup("alice", client.plan, client.digest) is not None
    with pytest.raises(ServerUnavailable):
        vault.lookup("bob", client.plan, client.digest)


def test_polynomials_end_where_key_material_says(client: Sample) -> None:
    assert Screen(client.plan).ends[-1] == client.plan.key_bytes == len(client.data)
