"""The client's own record: complete, unreadable without its key, and honest about what was done to it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from secure_infer import cli
from secure_infer.errors import CannotUnlock, InvalidInput, ServerUnavailable, SettingsError
from secure_infer.heads import Head
from secure_infer_client import Client, durable
from secure_infer_client.providers import KeyFile
from secure_infer_client.record import Record, frames, read
from secure_infer_client.sealed import HEADER_BYTES, Lock
from shared import unit_rows

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id with little memory, so that tests are not about it."""
    from secure_infer_client import sealed

    whole = sealed.Argon2id
    monkeypatch.setattr(sealed, "Argon2id", lambda **given: whole(**given | {"memory_cost": 64}))


def opened(path: Path, **changed: object) -> Record:
    return Record(path, PASSPHRASE, **({"operator": "ward 3"} | changed))


def entries(path: Path, anchors: tuple[str, ...] = ()) -> tuple[list[dict], list[str], int]:
    """(entries, problems, torn bytes)."""
    with read(path, PASSPHRASE, anchors) as (view, found):
        return list(found), view.problems, view.torn


def filled(path: Path, count: int = 4) -> list[str]:
    """A record of so many entries; the position after each."""
    with opened(path) as record:
        return [record.append({"kind": "call", "n": n}) or record.position for n in range(count)]


def frame_ends(path: Path) -> list[int]:
    data, at, ends = path.read_bytes(), HEADER_BYTES, []
    while at < len(data):
        at += frames._HEAD.size + int.from_bytes(data[at : at + 4], "big")
        ends.append(at)
    return ends


def test_calls_are_entered(address: str, heads: dict[str, Head], tmp_path: Path) -> None:
    path = tmp_path / "r"
    x = unit_rows(3, 8)
    with opened(path, ids="plain", answers=True) as record, Client(address, model="small", record=record) as client:
        with record.about(ids=["a", "b", "c"], task="audit 7"):
            client.predict(x)
        labels = client.decide(x[:1])
        with record.about(ids=["a"]), pytest.raises(InvalidInput, match="an id a row, 3, got 1"):
            client.predict(x)
        with pytest.raises(InvalidInput):
            client.predict(np.ones((1, 9)))
        digest, target = client.spec.digest, address
    (first, second), problems, torn = entries(path)
    assert (problems, torn) == ([], 0)
    assert first["time"].endswith("Z")
    assert first.items() >= {
        ("kind", "call"), ("call", "predict"), ("operator", "ward 3"), ("rows", 3), ("model", "small"),
        ("model_digest", digest), ("scheme", "ckks"), ("outcome", "answered"), ("task", "audit 7"),
    }  # fmt: skip
    assert first["targets"] == [target]
    assert first["ids"] == ["a", "b", "c"]
    assert first["answers"] == [heads["small"].labels[i] for i in heads["small"].evaluate(x).argmax(axis=1)]
    assert "both-private" in first["plan"]
    assert (second["call"], second["answers"]) == ("decide", labels)
    assert "ids" not in second


def test_failures_are_entered_and_answers_wait_for_their_entry(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, x = tmp_path / "r", unit_rows(1, 8)
    with opened(path) as record, Client(address, model="small", record=record) as client:
        client.predict(x)

        def away(*_: object) -> None:
            raise ServerUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(type(client._calls._session), "predict", away)
            with pytest.raises(ServerUnavailable):
                client.predict(x)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(durable, "write", full)
            with pytest.raises(SettingsError, match="No space left"):
                client.predict(x)
        client.predict(x)
    found, problems, _ = entries(path)
    assert [one["outcome"] for one in found] == ["answered", "SERVER_UNAVAILABLE", "answered"]
    assert not problems
    assert "answers" not in found[0]


def test_nothing_is_in_the_clear(address: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "r", "canary-4711"
    with opened(path, operator=canary, ids="plain", answers=True) as record:
        with Client(address, model="small", record=record) as client, record.about(ids=[canary], task=canary):
            client.predict(unit_rows(1, 8))
    data = path.read_bytes()
    for word in (canary, "class", "small", "ward", "127.0.0.1", "operator", "predict"):
        assert word.encode() not in data
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    assert canary in json.dumps(entries(path)[0], ensure_ascii=False)


def test_hashed_ids_are_found_and_not_told(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with opened(path) as record:
        with record.about(ids=["visit-1", "visit-2"]):
            record.append({"kind": "call", **record.said(2)})
    with read(path, PASSPHRASE) as (view, found):
        (entry,) = found
        assert [view.holds_id(entry, one) for one in ("visit-1", "visit-2", "visit-3")] == [True, True, False]
        assert "visit" not in json.dumps(entry)
    with opened(tmp_path / "other") as record, record.about(ids=["visit-1"]):
        assert record.said(1)["id_hashes"][0] not in entry["id_hashes"]  # another file, another key


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path, 3)
    data, first = path.read_bytes(), frame_ends(path)[0]
    for at in [*random.Random(3).sample(range(HEADER_BYTES, len(data)), 60), *range(first, first + 14)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        found, problems, _ = entries(path)
        assert len(problems) == 1, at
        assert f"entry {len(found) + 1} was changed" in problems[0]
        with pytest.raises(CannotUnlock):
            opened(path)
    path.write_bytes(data[:30] + b"\xff" + data[31:])
    with pytest.raises(CannotUnlock, match="does not open"):
        entries(path)
    with pytest.raises(CannotUnlock, match="does not begin"):
        (tmp_path / "short").write_bytes(data[:20])
        entries(tmp_path / "short")


def test_entries_moved_removed_or_repeated_are_found(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path)
    data, ends = path.read_bytes(), [HEADER_BYTES, *frame_ends(path)]
    head, parts = data[:HEADER_BYTES], [data[a:b] for a, b in pairwise(ends)]
    filled(tmp_path / "other")
    foreign = (tmp_path / "other").read_bytes()[HEADER_BYTES : frame_ends(tmp_path / "other")[0]]
    for order in ([1, 0, 2, 3], [0, 2, 3], [1, 2, 3], [0, 0, 1], [0, 1, 1]):
        path.write_bytes(head + b"".join(parts[i] for i in order))
        assert entries(path)[1], order
    path.write_bytes(head + foreign)
    assert entries(path)[1]


def test_a_position_kept_elsewhere_shows_what_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "r"
    positions = filled(path)
    ends = frame_ends(path)
    assert not entries(path, tuple(positions))[1]
    os.truncate(path, ends[1])
    assert not entries(path)[1]
    assert "entry 4, of which the position was kept elsewhere, is not there" in entries(path, (positions[3],))[1]
    with opened(path) as record:
        record.append({"kind": "call"})
        record.append({"kind": "call"})
    assert "is not the one" in entries(path, (positions[3],))[1][0]
    with pytest.raises(SettingsError, match="SEQUENCE:HASH"):
        entries(path, ("4",))


def test_a_torn_entry_is_dropped_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path, 2)
    data, (first, second) = path.read_bytes(), frame_ends(path)
    torn = [data[:end] for end in range(first + 1, second)]
    torn += [data[:end] + bytes(second - end) for end in (first + 20, second - 16)]  # the length came to the disk alone
    torn += [data[:first] + bytes(50)]
    for content in torn:
        path.write_bytes(content)
        found, problems, left = entries(path)
        assert (len(found), problems, left) == (1, [], len(content) - first)
        opened(path).close()
        found, problems, left = entries(path)
        assert [one["kind"] for one in found] == ["call", "torn"]
        assert (found[1]["bytes"], problems, left) == (len(content) - first, [], 0)


def test_writers_that_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "r"
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    code = (
        "import sys\n"
        "from secure_infer_client.record.record import Record\n"
        "from secure_infer_client.providers import KeyFile\n"
        "with Record(sys.argv[1], provider=KeyFile(sys.argv[2]), operator='o') as record:\n"
        "    for n in range(10**6):\n"
        "        record.append({'kind': 'call', 'n': n})\n"
        "        print(n, flush=True)\n"
    )
    seen = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(tmp_path / "key")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(20):
            assert process.stdout.readline()
            seen += 1
        process.send_signal(signal.SIGKILL)
        seen += len(process.stdout.read().split())
        process.wait()
        process.stdout.close()
    with read(path, KeyFile(tmp_path / "key").key) as (view, found):
        calls = [one for one in found if one["kind"] == "call"]
    assert seen <= len(calls) <= seen + 2
    assert not view.problems


def test_one_process_one_thread_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with opened(path) as record:
        with pytest.raises(SettingsError, match="another process"):
            opened(path)
        threads = [threading.Thread(target=record.append, args=({"kind": "call", "n": n},)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if (child := os.fork()) == 0:
            try:
                record.append({"kind": "call"})
            except SettingsError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    found, problems, _ = entries(path)
    assert sorted(one["n"] for one in found) == list(range(20))
    assert not problems
    with pytest.raises(SettingsError, match="closed"):
        record.append({"kind": "call"})


def test_processes_that_begin_one_record_at_once_lose_no_entry(tmp_path: Path) -> None:
    """One of them has it; the others are told so, and none writes where nothing is kept."""
    path, go = tmp_path / "r", tmp_path / "go"
    code = (
        "import pathlib, sys, time\n"
        "from secure_infer.errors import SettingsError\n"
        "from secure_infer_client import Record\n"
        "print('there', flush=True)\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "try: record = Record(sys.argv[1], sys.argv[3], operator='o')\n"
        "except SettingsError as error: print(error.message)\n"
        "else: record.append({'kind': 'call'}); print('entered', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path), str(go), PASSPHRASE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for child in children:
        child.stdout.readline()
    go.touch()
    said = [child.stdout.readline().strip() for child in children]
    for child in children:
        child.communicate()
    assert said.count("entered") == 1
    assert sum("another process writes" in words for words in said) == 2
    assert len(frame_ends(path)) == 1


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_taken_from_under_it_is_said(tmp_path: Path, how: str) -> None:
    path = tmp_path / "r"
    with opened(path) as record:
        record.append({"kind": "call"})
        path.rename(tmp_path / "moved")
        if how == "replaced":
            filled(path, 1)
        with pytest.raises(SettingsError, match="moved or replaced"):
            record.append({"kind": "call"})
        if how == "removed":
            (tmp_path / "moved").rename(path)
            record.append({"kind": "call"})  # and is there again


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    """As a worker of `multiprocessing` that outlives its parent's record."""
    path = tmp_path / "r"
    record = opened(path)
    (forked, told), (ended, end) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.close(end)
        os.write(told, b"x")
        os.read(ended, 1)
        os._exit(0)
    os.read(forked, 1)
    os.close(record._file)  # the parent is killed: nothing is unlocked, its copy is closed
    record._file = -1
    opened(path).close()
    os.close(end)
    os.waitpid(child, 0)
    for file in (forked, told, ended):
        os.close(file)


def test_wrong_use(tmp_path: Path) -> None:
    filled(tmp_path / "r", 1)
    with pytest.raises(CannotUnlock, match="passphrase"):
        Record(tmp_path / "r", "another horse", operator="o")
    for changed in ({"operator": " "}, {"ids": "all"}):
        with pytest.raises(SettingsError):
            opened(tmp_path / "r", **changed)
    with pytest.raises(SettingsError, match="at least 8"):
        Record(tmp_path / "new", "short", operator="o")
    with pytest.raises(SettingsError, match="one of them"):
        Record(tmp_path / "new", operator="o")
    with pytest.raises(SettingsError, match="cannot be written"):
        opened(tmp_path / "none" / "r")
    with pytest.raises(SettingsError, match="cannot be read"):
        entries(tmp_path / "none")


def test_locks_of_files(tmp_path: Path) -> None:
    lock = Lock.new(PASSPHRASE, b"record")
    again = Lock.of(lock.header, PASSPHRASE, b"record")
    assert again.open(lock.seal(b"m", context=b"1"), context=b"1") == b"m"
    with pytest.raises(CannotUnlock):
        again.open(lock.seal(b"m", context=b"1"), context=b"2")
    with pytest.raises(CannotUnlock):
        Lock.of(lock.header, PASSPHRASE, b"key ring")
    assert again.key(b"ids") == lock.key(b"ids") != lock.key(b"cipher")
    assert Lock.new(PASSPHRASE, b"record").key(b"ids") != lock.key(b"ids")


def test_the_command(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", unit_rows(2, 8))
    (tmp_path / "pass").write_text(PASSPHRASE + "\n")
    key = ("--record-passphrase-file", str(tmp_path / "pass"))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(list(arguments))
        return status, *capsys.readouterr()

    path = str(tmp_path / "r")
    predict = ("predict", "--target", address, "--model", "small", "--embeddings", str(tmp_path / "x.npy"))
    assert "--operator" in run(*predict, "--record", path, *key)[2]
    assert run(*predict, "--record", path, "--operator", "anna", "--record-answers", *key)[0] == 0
    found = json.loads(run("record", "show", path, *key, "--json")[1])
    assert found["shown"][0]["operator"] == "anna"
    assert len(found["shown"][0]["answers"]) == 2
    assert "predict of 2 rows by small" in run("record", "show", path, *key)[1]
    verdict = json.loads(run("record", "verify", path, *key, "--anchor", found["position"], "--json")[1])
    assert verdict == {"entries": 1, "position": found["position"], "torn_bytes": 0, "problems": []}
    assert run("record", "export", path, *key, "--out", str(tmp_path / "e"))[0] == 0
    assert json.loads((tmp_path / "e").read_text()) == found["shown"][0]
    assert "nothing was overwritten" in run("record", "export", path, *key, "--out", str(tmp_path / "e"))[2]
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    status, out, _ = run("record", "verify", path, *key)
    assert (status, "DOES NOT HOLD" in out) == (1, True)
    assert "--record-passphrase-file" in run("record", "verify", path)[2]
