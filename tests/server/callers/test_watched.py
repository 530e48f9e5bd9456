"""Files that are read again: what fails is told once, and tried again without a change."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer_server.callers import watched
from secure_infer_server.callers.watched import Watched, Watcher
from shared import until


def test_what_failed_is_tried_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a certificate that is not valid yet, or one that cannot be read for a moment."""
    file, fails, clock = tmp_path / "file", [False], [0.0]
    monkeypatch.setattr(watched, "monotonic", lambda: clock[0])

    def read() -> str:
        if fails[0]:
            raise SettingsError("not valid yet")
        return file.read_text()

    file.write_text("first")
    found = Watched("it", read, lambda: [file])
    fails[0] = True
    file.write_text("second one")
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert not found.refresh()
            clock[0] += watched.INTERVAL / 2
        assert found.value == "first"
        assert watched.held_back()["it"]
        fails[0] = False
        clock[0] += watched.INTERVAL
        assert found.refresh()
        assert not found.refresh()
    assert found.value == "second one"
    assert not watched.held_back()["it"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_one_of_several_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the keys of one issuer, twice; what is gone is told no more."""
    fails = [False, False]

    def reading(number: int) -> Callable[[], None]:
        def read() -> None:
            if fails[number]:
                raise SettingsError("no")

        return read

    file = tmp_path / "file"
    both = [Watched("one of two", reading(number), lambda: [file]) for number in range(2)]
    for number in range(2):
        fails[:] = [number == 0, number == 1]
        file.write_text("x" * (number + 1))
        assert [found.refresh() for found in both].count(False) == 1
        assert watched.held_back()["one of two"]
        monkeypatch.setattr(watched, "INTERVAL", 0.0)
        fails[:] = [False, False]
        for found in both:
            found._again = 0.0
            found.refresh()
        assert not watched.held_back()["one of two"]
    both.clear()
    del found
    assert "one of two" not in watched.held_back()


def test_what_cannot_be_listed_is_told_and_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mount that is away for a moment: what else is watched, such as a deny list, goes on."""
    away, denied = [False], tmp_path / "denied"
    denied.write_text("")

    def files() -> list[Path]:
        if away[0]:
            raise OSError(errno.ESTALE, "stale")
        return []

    keys, policy = Watched("keys", str, files), Watched("policy", denied.read_text, lambda: [denied])
    watcher = Watcher([keys, policy], 0.01)
    watcher.start()
    away[0] = True
    until(lambda: watched.held_back()["keys"])
    denied.write_text("cn:lost-laptop")
    until(lambda: policy.value == "cn:lost-laptop")
    away[0] = False
    until(lambda: not watched.held_back()["keys"])
    watcher.close()
    assert caplog.text.count("keys: not taken over, the earlier one stays in force: cannot be looked at") == 1
    away[0] = True
    with pytest.raises(SettingsError, match="keys: cannot be looked at"):
        Watched("keys", str, files)


def test_half_of_a_file_is_not_taken(tmp_path: Path) -> None:
    """As an editor or `cp` leaves it for a moment: what is read is what two looks, and a look after reading, found."""
    file, goes_on = tmp_path / "file", [False]
    file.write_text("whole")

    def read() -> str:
        found = file.read_text()
        if goes_on[0]:
            file.write_text(found + "!")
        return found

    found = Watched("it", read, lambda: [file])
    file.write_text("half")
    assert not found.look()
    file.write_text("half and the rest")
    assert not found.look()
    goes_on[0] = True
    assert not found.look()
    goes_on[0] = False
    assert not found.look()
    assert found.value == "whole"
    assert found.look()
    assert found.value == "half and the rest!"
    assert not found.look()


def test_a_watcher_tells_of_changes_alone(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    told = threading.Event()
    watcher = Watcher([Watched(file.name, str, lambda file=file: [file]) for file in files], 0.01, told.set)  # type: ignore[misc]
    watcher.start()
    assert not told.wait(0.1)
    files[1].write_text("new")
    assert told.wait(20)
    watcher.close()


def test_a_changed_mode_is_a_change(tmp_path: Path) -> None:
    """A key that was put in place as root, and only then given to the service."""
    file, reads = tmp_path / "file", [0]
    file.write_text("same")

    def read() -> int:
        reads[0] += 1
        return reads[0]

    found = Watched("it", read, lambda: [file])
    stamp = file.stat()
    file.chmod(0o640)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert found.refresh()
    assert not found.refresh()
