"""The audit log: what is recorded becomes durable in order, crashes are taken up, and what cannot be written refuses."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from secure_infer.errors import InternalFault, SettingsError
from secure_infer_server.audit import AuditLog, AuditSettings, AuditUnavailable, Event, WhenFull, chain, files, journal
from secure_infer_server.audit import log as log_module
from secure_infer_server.audit.journal import Journal
from secure_infer_server.audit.signing import Signer, Verifier
from secure_infer_server.audit.verify import Report, verify


def event(who: str = "hospital-a", **fields: Any) -> Event:
    given = {"model": "icd10", "model_digest": b"m" * 32, "records": 1, "request_id": b"r" * 16} | fields
    return Event(who=who, method="Infer", outcome=given.pop("outcome", "ok"), **given)


@contextmanager
def opened(directory: Path, **settings: Any) -> Iterator[AuditLog]:
    audit = AuditLog(AuditSettings(directory, **{"commit": 0.002} | settings))
    try:
        yield audit
    finally:
        audit.close()


def check(directory: Path, **options: Any) -> Report:
    return verify(directory, Verifier.of([directory / "audit.pub"]), **options)


def entries(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.glob("audit-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def callers(directory: Path) -> list[str]:
    return [entry["who"] for entry in entries(directory) if entry["kind"] == "call"]


def test_entries_say_who_when_what_and_how_it_ended(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        audit.record(event(outcome="BUDGET_EXHAUSTED", bytes_in=30934, second_factor=True, key_digest=b"k" * 32))
    (call,) = [entry for entry in entries(tmp_path) if entry["kind"] == "call"]
    assert call["time"].endswith("Z")
    assert (call["who"], call["method"], call["outcome"]) == ("hospital-a", "Infer", "BUDGET_EXHAUSTED")
    assert (call["model_digest"], call["key_digest"]) == ("6d" * 32, "6b" * 32)
    assert (call["records"], call["bytes_in"], call["second_factor"]) == (1, 30934, True)
    assert "plan_digest" not in call
    assert [entry["sequence"] for entry in entries(tmp_path)] == list(range(1, 1 + len(entries(tmp_path))))
    assert check(tmp_path).ok


def test_the_order_of_a_thread_is_kept_and_nothing_is_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as audit, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda t: [audit.record(event(f"{t}-{i}")) for i in range(250)], range(4)))
    found = callers(tmp_path)
    assert len(found) == 1000
    for thread in range(4):
        assert [who for who in found if who.startswith(f"{thread}-")] == [f"{thread}-{i}" for i in range(250)]
    assert check(tmp_path).ok


def test_flushed_entries_survive_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from secure_infer_server.audit import *\n"
        "audit = AuditLog(AuditSettings(Path(sys.argv[1]), commit=0.001))\n"
        "for i in range(50): audit.record(Event(who=f'w{i}', method='Infer', outcome='ok'))\n"
        "audit.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    report = check(tmp_path)
    assert report.ok
    assert report.signed < report.sequence  # the tail without a checkpoint is told
    assert any("not covered by a checkpoint" in note for note in report.notes)
    with opened(tmp_path):
        pass
    assert callers(tmp_path) == [f"w{i}" for i in range(50)]
    assert check(tmp_path).signed == check(tmp_path).sequence


def test_kills_at_any_moment_lose_nothing_that_was_durable(tmp_path: Path) -> None:
    code = (
        "import sys; from itertools import count; from pathlib import Path\n"
        "from secure_infer_server.audit import *\n"
        "audit = AuditLog(AuditSettings(Path(sys.argv[1]), commit=0.001, checkpoint_entries=20, rotate_bytes=8192))\n"
        "for i in count():\n"
        "    audit.record(Event(who=f'{sys.argv[2]}-{i}', method='Infer', outcome='ok'))\n"
        "    if i % 7 == 0: audit.flush(); print(i, flush=True)\n"
    )
    for run in range(5):
        command = [sys.executable, "-c", code, str(tmp_path), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(3 + 4 * run):
                durable = int(child.stdout.readline())
            threading.Event().wait(0.0007 * run)
            child.kill()
        assert check(tmp_path).ok
        with opened(tmp_path, rotate_bytes=8192):
            pass
        assert check(tmp_path).ok
        found = callers(tmp_path)
        assert [who for who in found if who.startswith(f"{run}-")][: durable + 1] == [
            f"{run}-{i}" for i in range(durable + 1)
        ]


def _tear(directory: Path, tail: bytes) -> None:
    with sorted(directory.glob("audit-*.jsonl"))[-1].open("ab") as file:
        file.write(tail)


@pytest.mark.parametrize("tail", [b'{"sequence":5,"ti', b"\0" * 300, b'{"sequence":5}\n{"half', b"\n"])
def test_a_torn_end_is_set_aside_and_recorded(tmp_path: Path, tail: bytes) -> None:
    with opened(tmp_path) as audit:
        audit.record(event())
    _tear(tmp_path, tail)
    with opened(tmp_path) as audit:
        audit.record(event("after"))
    (recovered,) = [entry for entry in entries(tmp_path) if entry["kind"] == "recovered"]
    assert (tmp_path / recovered["file"]).read_bytes() == tail
    assert callers(tmp_path) == ["hospital-a", "after"]
    report = check(tmp_path)
    assert report.ok
    assert any("kept in torn-" in note for note in report.notes)
    (tmp_path / recovered["file"]).unlink()
    assert any("gone in torn-" in note for note in check(tmp_path).notes)


def test_a_torn_end_is_recorded_also_after_a_second_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between setting it aside and saying so; and between saying so and giving the file its name."""
    with opened(tmp_path) as audit:
        audit.record(event())
    _tear(tmp_path, b"half a line")
    for method in ("write", "checkpoint"):
        with monkeypatch.context() as patch, pytest.raises(SettingsError):
            patch.setattr(Journal, method, lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "as if killed")))
            Journal(AuditSettings(tmp_path))
    with opened(tmp_path) as audit:
        audit.record(event("after"))
    recovered = [entry for entry in entries(tmp_path) if entry["kind"] == "recovered"]
    assert {(one["file"], one["segment"]) for one in recovered} == {(recovered[0]["file"], "audit-00000001.jsonl")}
    assert (tmp_path / recovered[0]["file"]).read_bytes() == b"half a line"
    assert not list(tmp_path.glob("*.untold"))
    report = check(tmp_path)
    assert report.ok
    assert any("kept in torn-" in note for note in report.notes)


def test_a_check_beside_a_server_that_begins_segments_finds_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(AuditSettings(tmp_path, rotate_bytes=4096))
    read_head = files.read_head

    def meanwhile(directory: Path) -> Any:
        found = read_head(directory)
        number = log._number
        while log._number == number:
            log.write([(chain.CALL, 1e9, '"who":"cn:a"')] * 10)
        log.checkpoint()
        return found

    for order in (files.read_head, meanwhile):
        monkeypatch.setattr(files, "read_head", order)
        report = check(tmp_path)
        assert report.ok, report.problems
    log.close()


def test_a_log_under_way_may_end_in_half_a_line(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    _tear(tmp_path, b'{"sequence":')
    report = check(tmp_path)
    assert report.ok
    assert any("not whole" in note for note in report.notes)


@pytest.mark.parametrize("begun", [b"", b'{"sequence":99,"hal'])
def test_a_crash_while_a_segment_begins(tmp_path: Path, begun: bytes) -> None:
    with opened(tmp_path) as audit:
        audit.record(event())
    (tmp_path / "audit-00000002.jsonl").write_bytes(begun)
    with opened(tmp_path) as audit:
        audit.record(event("after"))
    assert callers(tmp_path) == ["hospital-a", "after"]
    assert check(tmp_path).ok
    assert len([entry for entry in entries(tmp_path) if entry["kind"] == "recovered"]) == bool(begun)


def test_a_log_cut_before_its_signed_head_is_not_taken_up(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        audit.record(event())
    (segment,) = tmp_path.glob("audit-*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:3]))
    with pytest.raises(SettingsError, match="no crash"):
        AuditLog(AuditSettings(tmp_path))
    segment.unlink()
    with pytest.raises(SettingsError, match="no crash"):
        AuditLog(AuditSettings(tmp_path))


def test_segments_rotate_by_size_and_carry_the_chain(tmp_path: Path) -> None:
    with opened(tmp_path, rotate_bytes=4096) as audit:
        for i in range(60):
            audit.record(event(f"w{i}"))
            assert audit.flush(10)
    assert len(list(tmp_path.glob("audit-*.jsonl"))) > 3
    assert callers(tmp_path) == [f"w{i}" for i in range(60)]
    report = check(tmp_path)
    assert report.ok
    assert report.entries == report.sequence == report.signed
    with opened(tmp_path, rotate_bytes=4096):
        pass
    assert check(tmp_path).ok
    for archived in (1, 2):
        (tmp_path / f"audit-0000000{archived}.jsonl").unlink()
    assert not check(tmp_path).ok
    assert check(tmp_path, first_segment=3).ok


def test_segments_rotate_by_day(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        audit.record(event())
    yesterday = (tmp_path / "audit-00000001.jsonl").stat().st_mtime - 86400
    os.utime(tmp_path / "audit-00000001.jsonl", (yesterday, yesterday))
    with opened(tmp_path):
        pass
    assert [path.name for path in sorted(tmp_path.glob("audit-*.jsonl"))][-1] == "audit-00000002.jsonl"
    assert check(tmp_path).ok


def test_checkpoints_follow_entries_and_time(tmp_path: Path) -> None:
    with opened(tmp_path, checkpoint_entries=10, checkpoint_seconds=3600) as audit:
        for _ in range(35):
            audit.record(event())
            assert audit.flush(10)
        before = check(tmp_path)
    assert before.checkpoints >= 4
    with opened(tmp_path / "timed", checkpoint_seconds=0.05) as audit:
        audit.record(event())
        for _ in range(100):
            if check(tmp_path / "timed").signed == 5:
                break
            threading.Event().wait(0.02)
        assert check(tmp_path / "timed").signed == 5


def test_checkpoints_are_told_to_the_servers_log_as_anchors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), opened(tmp_path) as audit:
        audit.record(event())
    sequence, digest = caplog.messages[-1].removeprefix("audit checkpoint ").split(":")
    assert check(tmp_path, anchors=[(int(sequence), digest)]).ok
    assert not check(tmp_path, anchors=[(int(sequence), "0" * 64)]).ok
    assert not check(tmp_path, anchors=[(int(sequence) + 1, digest)]).ok


def test_the_key_is_its_owners_and_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "key"
    with opened(tmp_path / "log", key=elsewhere):
        pass
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    with opened(tmp_path / "log", key=elsewhere):
        pass
    assert (tmp_path / "log" / "audit.pub").read_bytes().count(b"BEGIN PUBLIC KEY") == 1
    with pytest.raises(SettingsError, match=r"put it back, or make a new one: openssl"):  # a misspelt name makes no key
        AuditLog(AuditSettings(tmp_path / "log", key=tmp_path / "next"))
    Signer.of(tmp_path / "next")
    with opened(tmp_path / "log", key=tmp_path / "next"):  # rotated: earlier checkpoints still verify
        pass
    assert check(tmp_path / "log").ok
    elsewhere.chmod(0o644)
    with pytest.raises(SettingsError, match="0600"):
        AuditLog(AuditSettings(tmp_path / "log", key=elsewhere))
    (tmp_path / "junk").touch(0o600)
    with pytest.raises(SettingsError, match="PEM"):
        AuditLog(AuditSettings(tmp_path / "log", key=tmp_path / "junk"))


def test_one_process_writes_a_directory(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(SettingsError, match="another process"):
        AuditLog(AuditSettings(tmp_path))
    with opened(tmp_path):
        pass


class Disk:
    """Fails while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, write = False, os.pwrite

        def pwrite(file: int, data: bytes, at: int) -> int:
            if self.full:
                write(file, data[: len(data) // 2], at)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data, at)

        monkeypatch.setattr(journal.os, "pwrite", pwrite)
        monkeypatch.setattr(log_module, "RETRY_SECONDS", 0.01)


def _until_refused(audit: AuditLog) -> AuditUnavailable:
    for _ in range(500):
        try:
            audit.check()
        except AuditUnavailable as refused:
            return refused
        threading.Event().wait(0.01)
    raise AssertionError("never refused")


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    with opened(tmp_path) as audit:
        audit.record(event("before"))
        assert audit.flush(10)
        disk.full = True
        audit.record(event("during"))
        assert "No space" in _until_refused(audit).message
        with pytest.raises(AuditUnavailable):
            audit.record(event("refused"))
        disk.full = False
        assert audit.flush(10)
        audit.record(event("after"))
    assert callers(tmp_path) == ["before", "during", "after"]
    assert check(tmp_path).ok


def test_a_full_queue_refuses_or_lets_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, go = Disk(monkeypatch), threading.Event()
    monkeypatch.setattr(log_module, "sleep", lambda _: go.wait(20))  # until the writer takes them
    with opened(tmp_path / "refuse", queue=5) as audit:
        for i in range(5):
            audit.record(event(f"w{i}"))
        with pytest.raises(AuditUnavailable, match="5 entries wait"):
            audit.record(event("one too many"))
        with pytest.raises(AuditUnavailable):
            audit.check()
        go.set()
    assert callers(tmp_path / "refuse") == [f"w{i}" for i in range(5)]
    with opened(tmp_path / "wait", queue=5, when_full=WhenFull.WAIT) as audit:
        for i in range(40):
            audit.record(event(f"w{i}"))
    assert len(callers(tmp_path / "wait")) == 40
    go.clear()
    with opened(tmp_path / "short", queue=1, when_full=WhenFull.WAIT, wait=0.01) as audit:
        audit.record(event())
        with pytest.raises(AuditUnavailable):
            audit.record(event())
        go.set()
    assert not disk.full


def test_a_writer_that_died_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = AuditLog(AuditSettings(tmp_path, commit=0))
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "write", lambda self, records: 1 / 0)
        audit.record(event())
        assert "thread ended" in _until_refused(audit).message
    audit.close()


def test_an_event_loop_waits_without_standing_still(tmp_path: Path) -> None:
    async def both(audit: AuditLog) -> int:
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        other = asyncio.create_task(turning())
        for _ in range(20):
            await audit.arecord(event())
        other.cancel()
        return turns

    with opened(tmp_path, queue=3, when_full=WhenFull.WAIT, commit=0.01) as audit:
        assert asyncio.run(both(audit)) > 5
    assert len(callers(tmp_path)) == 20


def test_after_close_and_in_a_fork_nothing_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        child = os.fork()
        if not child:
            try:
                audit.check()
            except InternalFault:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with pytest.raises(AuditUnavailable, match="closed"):
        audit.record(event())
    audit.close()
    assert audit.flush()


def test_what_was_taken_before_close_is_written(tmp_path: Path) -> None:
    for attempt in range(5):
        audit, taken = AuditLog(AuditSettings(tmp_path / str(attempt), commit=0)), []

        def recording(audit: AuditLog = audit, taken: list[str] = taken) -> None:
            for i in range(100_000):
                try:
                    audit.record(event(f"w{i}"))
                except AuditUnavailable:
                    return
                taken.append(f"w{i}")

        thread = threading.Thread(target=recording)
        thread.start()
        while len(taken) < 50:
            pass
        audit.close()
        thread.join()
        assert callers(tmp_path / str(attempt)) == taken


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    for wrong in ({"commit": 0.2}, {"queue": 0}, {"rotate_bytes": 5}, {"checkpoint_seconds": 0}, {"wait": -1.0}):
        with pytest.raises(SettingsError):
            AuditSettings(tmp_path, **wrong)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        AuditLog(AuditSettings(tmp_path / "file"))


def test_a_log_that_is_taken_away_takes_no_entries(tmp_path: Path) -> None:
    """By a cleaner, or a rotation of somebody else's: what goes to a file without its name, nobody reads."""
    for harm in (
        lambda: shutil.rmtree(tmp_path / "log"),
        lambda: (tmp_path / "log" / "audit-00000001.jsonl").rename(tmp_path / "x"),
    ):
        with opened(tmp_path / "log", checkpoint_seconds=0.05) as audit:
            audit.record(event("before"))
            assert audit.flush(10)
            harm()
            with suppress(AuditUnavailable):
                audit.record(event("after"))
            assert "no checkpoint can be written" in _until_refused(audit).message
            assert audit.failing
            assert audit.standing.failure
        shutil.rmtree(tmp_path / "log", ignore_errors=True)


def test_a_head_that_could_not_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing comes meanwhile, as everything is refused."""
    fails, replace = [False], files.replace

    def broken(path: Path, data: bytes) -> None:
        if fails[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(path, data)

    monkeypatch.setattr(journal.files, "replace", broken)
    with opened(tmp_path, checkpoint_seconds=0.05) as audit:
        fails[0] = True
        audit.record(event("before"))
        assert "No space" in _until_refused(audit).message
        fails[0] = False
        for _ in range(500):
            if not audit.failing:
                break
            threading.Event().wait(0.01)
        audit.record(event("after"))
    assert callers(tmp_path) == ["before", "after"]
    assert check(tmp_path).ok
