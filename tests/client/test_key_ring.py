"""The key ring's file: what it keeps, from whom, and who may have it open."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from secure_infer.errors import CannotUnlock, SettingsError
from secure_infer_client import durable
from secure_infer_client.keyring import Entry, KeyRing
from secure_infer_client.providers import KeyFile, OsKeyring
from secure_infer_client.ringstate import Name, Seed

PASSPHRASE = "correct horse battery"
NAME = Name("ckks", ("infer.example:8443",), "canary-model")
SEED = Seed(b"\xa5" * 64, b"\x5a" * 32, 1_700_000_000)


class Counting:
    """A provider that also remembers the generation."""

    def __init__(self) -> None:
        self.generation = 0

    def key(self) -> bytes:
        return bytes(range(32))

    def remember(self, generation: int) -> None:
        self.generation = generation

    def remembered(self) -> int:
        return self.generation


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(32)))
    return path


@pytest.fixture
def ring(tmp_path: Path, key_file: Path) -> KeyRing:
    return KeyRing(tmp_path / "ring", provider=KeyFile(key_file))


def entry(ring: KeyRing, name: Name = NAME) -> Entry:
    return ring.entry(name.scheme, name.targets, name.model)


def fill(ring: KeyRing) -> None:
    made = entry(ring)
    with made.changing() as state:
        state.seeds["4096:97"] = SEED
        state.uploaded["ab"] = "cd"
        state.pinned = [b"a response"]
    made.close()


def test_what_was_kept_is_there_again(ring: KeyRing) -> None:
    fill(ring)
    again = entry(ring)
    assert again.state.seeds == {"4096:97": SEED}
    assert (again.state.uploaded, again.state.pinned, again.state.refusals) == ({"ab": "cd"}, [b"a response"], 0)
    again.refuse()
    again.close()
    last = entry(ring)
    assert (last.state.seeds, last.state.uploaded, last.state.refusals) == ({}, {}, 1)
    assert last.state.retired == [("ab", "cd")]
    last.close()


def test_entries_are_apart(ring: KeyRing) -> None:
    fill(ring)
    with ring:
        other = entry(ring, Name("ckks", NAME.targets, "other"))
        other.refuse()
        other.close()
        assert [name.model for name in ring.names()] == ["canary-model", "other"]
        assert ring.facts(NAME)["refusals"] == 0
        ring.delete(NAME)
        assert [name.model for name in ring.names()] == ["other"]


def test_facts_show_no_seed(ring: KeyRing) -> None:
    fill(ring)
    with ring:
        shown = repr(ring.facts(NAME))
    assert "4096" in shown
    assert not any(form in shown for form in (SEED.value.hex(), "pYWl", "paWl", str(SEED.value)))


def test_it_is_its_owners_alone(ring: KeyRing) -> None:
    fill(ring)
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620):
        ring.path.chmod(mode)
        with pytest.raises(SettingsError, match=f"mode 0{mode:o}.*expected 0600"):
            ring.open()
    ring.path.chmod(0o600)
    target = ring.path.rename(ring.path.with_name("elsewhere"))
    ring.path.symlink_to(target)
    with pytest.raises(SettingsError, match="cannot be read"):
        ring.open()


def test_one_process_at_a_time(ring: KeyRing, key_file: Path) -> None:
    fill(ring)
    program = (
        "import sys; from secure_infer_client.keyring import KeyRing; from secure_infer_client.providers import KeyFile\n"
        "KeyRing(sys.argv[1], provider=KeyFile(sys.argv[2])).open()"
    )

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, ring.path, key_file], capture_output=True, text=True, timeout=60
        )

    with ring:
        refused = other()
        assert refused.returncode == 1
        assert "it is in use" in refused.stderr
        with pytest.raises(SettingsError, match="in use"):
            KeyRing(ring.path, provider=KeyFile(key_file)).open()
    assert other().returncode == 0


def test_one_client_has_an_entry(ring: KeyRing) -> None:
    first = entry(ring)
    with pytest.raises(SettingsError, match="a client of this process has the keys of canary-model"):
        entry(ring)
    with pytest.raises(SettingsError, match="close it first"):
        ring.delete(NAME)
    first.close()
    entry(ring).close()


def test_a_closed_ring_says_so(ring: KeyRing) -> None:
    with pytest.raises(SettingsError, match="closed"):
        ring.names()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_neither_uses_nor_holds_it(ring: KeyRing, key_file: Path) -> None:
    fill(ring)
    ring.open()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:  # lives on after the parent let go
        try:
            ring.names()
        except SettingsError as problem:
            os.write(theirs, problem.message.encode())
        ring.close()
        os.close(theirs)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        assert b"before a fork" in said.read()
    os.waitpid(child, 0)
    with pytest.raises(SettingsError, match="in use"):  # the child's end took nothing away
        KeyRing(ring.path, provider=KeyFile(key_file)).open()
    ring.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_its_parents_use_holds_nothing(ring: KeyRing, key_file: Path) -> None:
    ring.open()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        os._exit(0)
    try:
        ring.close()
        again = KeyRing(ring.path, provider=KeyFile(key_file))
        again.open()
        again.close()
    finally:
        os.close(go)
        os.close(wait)
        os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_ignored(ring: KeyRing) -> None:
    fill(ring)
    ring.path.with_name("ring.new").write_bytes(b"half of a")
    again = entry(ring)
    assert again.state.uploaded == {"ab": "cd"}
    with again.changing() as state:
        state.refusals = 1
    again.close()
    assert not ring.path.with_name("ring.new").exists()
    with ring:
        assert ring.facts(NAME)["refusals"] == 1


def test_a_write_that_fails_leaves_the_old_file(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ring)
    made = entry(ring)
    before = ring.path.read_bytes()
    monkeypatch.setattr(durable, "replace", _full)
    with pytest.raises(SettingsError, match="cannot be written"), made.changing() as state:
        state.records = 5
    assert ring.path.read_bytes() == before
    made.close()


def test_a_refusal_that_cannot_be_written_ruins_the_file(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was destroyed must not be there again, whatever the disk does."""
    fill(ring)
    made = entry(ring)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "replace", _full)
        with pytest.raises(SettingsError, match="cannot be written"):
            made.refuse()
    made.close()
    assert not ring.path.read_bytes().strip(b"\0")
    with pytest.raises(CannotUnlock):
        ring.open()


def _full(path: Path, data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_changed_passphrase(tmp_path: Path, key_file: Path) -> None:
    ring = KeyRing(tmp_path / "ring", passphrase=PASSPHRASE)
    fill(ring)
    old = ring.path.read_bytes()
    with ring:
        ring.change_secret(provider=KeyFile(key_file))
    assert ring.path.read_bytes()[:60] != old[:60]  # another salt
    again = entry(KeyRing(ring.path, provider=KeyFile(key_file)))
    assert again.state.seeds == {"4096:97": SEED}
    again.close()
    with pytest.raises(CannotUnlock):
        KeyRing(ring.path, passphrase=PASSPHRASE).open()


@pytest.mark.parametrize("arguments", [{}, {"passphrase": PASSPHRASE, "provider": Counting()}], ids=["neither", "both"])
def test_one_secret_is_wanted(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(SettingsError, match="expected a passphrase or a provider"):
        KeyRing(tmp_path / "ring", **arguments)


def test_a_short_passphrase(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 8 characters"):
        fill(KeyRing(tmp_path / "ring", passphrase="short"))


# Providers.


def test_key_files(key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KeyFile(key_file).key() == bytes(range(32))
    key_file.chmod(0o640)
    with pytest.raises(SettingsError, match="others may read it"):
        KeyFile(key_file).key()
    key_file.chmod(0o600)
    short = tmp_path / "short"
    short.touch(mode=0o600)
    with pytest.raises(SettingsError, match="32 random bytes"):
        KeyFile(short).key()
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyFile(tmp_path / "none").key()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SettingsError, match="CREDENTIALS_DIRECTORY"):
        KeyFile.credential("key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    assert KeyFile.credential("key").key() == bytes(range(32))
    with pytest.raises(SettingsError, match="expected a name"):
        KeyFile.credential("../key")


@pytest.fixture
def session_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """The package `keyring` with a backend in memory."""
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    held: dict[tuple[str, str], str] = {}

    class InMemory(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def get_password(self, service: str, username: str) -> str | None:
            return held.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            held[service, username] = password

    monkeypatch.setenv("HOME", str(tmp_path))
    before = keyring.get_keyring()
    keyring.set_keyring(InMemory())
    yield held
    keyring.set_keyring(before)


def test_the_systems_keyring(tmp_path: Path, session_keyring: dict) -> None:
    ring = KeyRing(tmp_path / "ring", provider=OsKeyring())
    fill(ring)
    assert len(bytes.fromhex(session_keyring["secure-infer", "key ring"])) == 32
    assert session_keyring["secure-infer", "key ring, generation"] == "1"
    again = entry(KeyRing(ring.path, provider=OsKeyring()))
    assert again.state.seeds == {"4096:97": SEED}
    again.close()


@pytest.mark.usefixtures("session_keyring")
def test_first_uses_of_a_keyring_at_once_have_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process asks between the look at the entry and its writing."""
    keys, others = [], [OsKeyring() for _ in range(3)]
    looked, get = threading.Barrier(3), OsKeyring._get

    def slowly(self: OsKeyring, name: str) -> str | None:
        found = get(self, name)
        with suppress(threading.BrokenBarrierError):
            looked.wait(0.2)
        return found

    monkeypatch.setattr(OsKeyring, "_get", slowly)
    threads = [threading.Thread(target=lambda other=other: keys.append(other.key())) for other in others]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_no_keyring_service_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        with pytest.raises(SettingsError, match="takes an unlocked session"):
            OsKeyring().key()
    finally:
        keyring.set_keyring(before)


# Theft, tampering, older copies. What each finds is stated in SECURITY.md.


@pytest.mark.parametrize("provider", [None, "file"])
def test_a_stolen_file_says_nothing(tmp_path: Path, key_file: Path, provider: str | None) -> None:
    secret = {"passphrase": PASSPHRASE} if provider is None else {"provider": KeyFile(key_file)}
    ring = KeyRing(tmp_path / "ring", **secret)  # type: ignore[arg-type]
    fill(ring)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for canary in (SEED.value, SEED.fingerprint, b"canary", b"infer.example", b"uploaded", b"4096:97", b"refusals"):
            assert canary not in content
            assert canary[:8] not in content
    with pytest.raises(CannotUnlock):
        KeyRing(ring.path, passphrase="another passphrase").open()


def test_each_write_has_a_nonce_of_its_own(ring: KeyRing) -> None:
    made, seen = entry(ring), []
    for _ in range(4):
        with made.changing():
            pass
        seen.append(ring.path.read_bytes())
    made.close()
    bodies = [data[-60:] for data in seen]
    assert len(set(bodies)) == 4


def test_every_changed_byte_is_refused(ring: KeyRing) -> None:
    fill(ring)
    data = ring.path.read_bytes()
    places = [*range(120), *range(120, len(data), 37), len(data) - 1]
    for changed in [
        *(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in places),
        data[:-1],
        data[:50],
        b"",
        data * 2,
    ]:
        ring.path.write_bytes(changed)
        with pytest.raises((CannotUnlock, SettingsError)):
            ring.open()
    ring.path.write_bytes(data)
    with ring:
        assert ring.facts(NAME)["uploaded"] == 1


def test_an_older_file_is_noticed_by_who_wrote_a_newer(ring: KeyRing) -> None:
    fill(ring)
    old = ring.path.read_bytes()
    made = entry(ring)
    made.refuse()
    ring.path.write_bytes(old)
    with made.changing() as state:  # what this process knows counts, not what lies there
        state.records = 1
    made.close()
    with ring:
        assert ring.facts(NAME)["refusals"] == 1


def test_an_older_file_is_not_noticed_by_a_new_process_with_a_passphrase(ring: KeyRing) -> None:
    """The limit, stated: a destroyed key comes back with a copy of the file."""
    fill(ring)
    old = ring.path.read_bytes()
    made = entry(ring)
    made.refuse()
    made.close()
    ring.path.write_bytes(old)
    with ring:
        assert ring.facts(NAME)["refusals"] == 0


def test_a_provider_that_remembers_notices_it(tmp_path: Path) -> None:
    provider = Counting()
    ring = KeyRing(tmp_path / "ring", provider=provider)
    fill(ring)
    old = ring.path.read_bytes()
    made = entry(ring)
    made.refuse()
    made.close()
    ring.path.write_bytes(old)
    with pytest.raises(CannotUnlock, match="an older copy was put back"):
        ring.open()
    ring.path.unlink()
    with pytest.raises(CannotUnlock, match="an older copy was put back"):
        ring.open()
    ring.begin_anew()
    with ring:
        assert ring.names() == []


def test_storage_knows_no_secret() -> None:
    """Modules that read and write the ring see opaque bytes: they name nothing that makes or uses a secret key."""
    folder = Path(__file__).resolve().parents[2] / "client/secure_infer_client"
    for name in (
        "ringfile.py",
        "providers.py",
        "keyring.py",
        "ringstate.py",
        "sealed.py",
        "durable.py",
        "commands/ring.py",
    ):
        tree = ast.parse((folder / name).read_text())
        imported = {
            node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module is not None
        }
        assert not imported & {"secure_infer_client.keys", "secure_infer_client.heldkeys", "tenseal.sealapi"}, name
