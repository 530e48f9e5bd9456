"""The disk store: restarts, kills, rot, other processes, and who may read it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from secure_infer.errors import InternalFault, MalformedRequest, ResourceExhausted, SettingsError
from secure_infer_benchmarks.stress import key_kills
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.files import STALE_SECONDS, BlobFiles
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.names import PendingKey, Usage
from server.keys.stores import fine, name_of

BODY = bytes(range(256)) * 100
NAME = name_of("alice", BODY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def store(root: Path, limits: KeyLimits | None = None) -> DiskBackend:
    return DiskBackend(root, limits or KeyLimits())


def put(backend: DiskBackend) -> None:
    backend.begin(NAME, "model", len(BODY))
    backend.append(NAME, 0, BODY)
    backend.commit(NAME, fine)


def blob(root: Path) -> Path:
    return next((root / "blobs").iterdir())


def test_it_is_killed_at_random_moments_and_stays_consistent(root: Path) -> None:
    endured = key_kills.endure(8, root)
    assert endured.kills == 8
    assert endured.keys


def test_two_processes_work_on_one_store_and_both_are_killed(root: Path) -> None:
    command = [sys.executable, "-m", "secure_infer_benchmarks.stress.key_kills", str(root), "shared"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        child.stdout.readline()
    time.sleep(1)
    said = []
    for child in children:
        assert child.poll() is None
        child.kill()
        said.append(child.communicate()[0])
    assert all("uploaded" in words for words in said)
    assert not any("wrong" in words for words in said)
    unknown = {(owner, key): None for owner in range(key_kills.OWNERS) for key in range(key_kills.KEYS)}
    keys, _, _ = key_kills.check(root, [], unknown)
    assert keys


@pytest.mark.parametrize("interferes", ["commit", "discard"])
def test_a_key_that_another_process_publishes_keeps_its_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch, interferes: str
) -> None:
    """The file is moved, its row is not there yet: the other finds an upload without a file, and must wait for the row."""
    publisher, other = store(root), store(root)
    publisher.begin(NAME, "model", len(BODY))
    publisher.append(NAME, 0, BODY)
    publish, drop = BlobFiles.publish, DiskBackend._discard
    dropping, threads = threading.Event(), []
    failures: list[BaseException] = []

    def interfere() -> None:
        try:
            other.commit(NAME, fine) if interferes == "commit" else other.discard(NAME)
        except BaseException as error:
            failures.append(error)

    def published(files: BlobFiles, place: str) -> None:
        publish(files, place)
        threads.append(threading.Thread(target=interfere))
        threads[0].start()
        assert dropping.wait(10)

    def discarded(backend: DiskBackend, upload: PendingKey) -> None:
        dropping.set()
        drop(backend, upload)

    monkeypatch.setattr(BlobFiles, "publish", published)
    monkeypatch.setattr(DiskBackend, "_discard", discarded)
    publisher.commit(NAME, fine)
    threads[0].join()
    assert not failures
    assert other.get(NAME) == BODY
    assert publisher.usage() == Usage(1, len(BODY), 0, 0)


def test_keys_and_uploads_outlive_a_restart(root: Path) -> None:
    first = store(root)
    put(first)
    other = name_of("bob", BODY)
    first.begin(other, "model", len(BODY))
    first.append(other, 0, BODY[:1000])
    first.close()
    again = store(root)
    assert again.get(NAME) == BODY
    assert again.held("alice")[0].model == "model"
    assert again.begin(other, "model", len(BODY)) == 1000


def test_this_user_alone_may_read_it(root: Path) -> None:
    before = os.umask(0)
    try:
        backend = store(root)
        put(backend)
        backend.begin(name_of("bob", BODY), "model", len(BODY))
    finally:
        os.umask(before)
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    backend.close()
    root.chmod(0o750)
    with pytest.raises(SettingsError, match=r"expected .* mode 700, got 750"):
        store(root)


def test_a_rotten_blob_is_dropped(root: Path) -> None:
    backend = store(root)
    put(backend)
    blob(root).write_bytes(BODY[:-1] + b"!")
    assert backend.get(NAME) is None
    assert backend.usage() == Usage()
    assert not list((root / "blobs").iterdir())
    put(backend)
    assert backend.get(NAME) == BODY


def test_a_blob_that_is_gone_is_no_key(root: Path) -> None:
    backend = store(root)
    put(backend)
    blob(root).unlink()
    assert backend.get(NAME) is None
    assert not backend.held("alice")


def test_a_refused_key_leaves_nothing_behind(root: Path) -> None:
    backend = store(root)
    backend.begin(NAME, "model", len(BODY))
    backend.append(NAME, 0, BODY)

    def refuse(data: bytes) -> None:
        raise MalformedRequest("no")

    with pytest.raises(MalformedRequest):
        backend.commit(NAME, refuse)
    assert not list((root / "blobs").iterdir())
    assert not list((root / "pending").iterdir())


def test_remains_are_swept_when_alone_at_once_else_when_old(root: Path) -> None:
    first = store(root)
    fresh, old = root / "blobs" / "fresh", root / "pending" / "old"
    for path in (fresh, old):
        path.write_bytes(b"x")
    os.utime(old, (0, time.time() - STALE_SECONDS - 10))
    second = store(root)  # not alone: what is fresh may be about to get its row
    assert fresh.exists()
    assert not old.exists()
    first.close()
    second.close()
    store(root).close()
    assert not fresh.exists()


def test_an_upload_cut_off_while_it_was_published_begins_again(root: Path) -> None:
    backend = store(root)
    backend.begin(NAME, "model", len(BODY))
    backend.append(NAME, 0, BODY)
    file = next((root / "pending").iterdir())
    file.rename(root / "blobs" / file.name)  # and the process ends before the row is there
    assert backend.progress(NAME) == (0, False)
    backend.close()
    again = store(root)
    assert not list((root / "blobs").iterdir())
    assert not again.pending("alice")
    put(again)
    assert again.get(NAME) == BODY


def test_bytes_that_a_power_cut_took_are_asked_for_again(root: Path) -> None:
    backend = store(root)
    backend.begin(NAME, "model", len(BODY))
    backend.append(NAME, 0, BODY[:5000])
    os.truncate(next((root / "pending").iterdir()), 4096)
    assert backend.begin(NAME, "model", len(BODY)) == 0


def test_a_full_disk_is_said_and_nothing_is_half_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = store(root)
    assert backend.failures == {"full": 0, "busy": 0}
    put(backend)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    other = name_of("bob", BODY)
    backend.begin(other, "model", len(BODY))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceExhausted, match="disk is full"):
            backend.append(other, 0, BODY)
    assert backend.progress(other) == (0, False)
    backend.append(other, 0, BODY)
    with monkeypatch.context() as patch:
        patch.setattr(BlobFiles, "publish", full)
        with pytest.raises(ResourceExhausted, match="disk is full"):
            backend.commit(other, fine)
    assert not backend.held("bob")
    assert backend.get(NAME) == BODY
    assert backend.failures == {"full": 2, "busy": 0}
    assert [record.message for record in caplog.records] == [
        f"key store: the disk of {root / 'keys.db'} is full: no client can upload keys"
    ]


def test_what_cannot_be_used_is_said(root: Path, tmp_path: Path) -> None:
    store(root).close()
    rows = sqlite3.connect(root / "keys.db")
    rows.execute("PRAGMA user_version = 9")
    rows.close()
    for _ in range(2):  # the refusal lets go of the directory
        with pytest.raises(SettingsError, match="has version 9, expected 1"):
            store(root)
    (root / "keys.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(SettingsError, match="cannot use"):
        store(root)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot use"):
        store(tmp_path / "file")


def test_a_fork_makes_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = store(root)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(InternalFault, match="fork"):
        backend.get(NAME)
