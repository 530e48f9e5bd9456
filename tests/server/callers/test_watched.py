"""Files that are read again: what fails is told once, and tried again without a change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer_server.callers import watched
from secure_infer_server.callers.watched import Watched


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
        fails[0] = False
        clock[0] += watched.INTERVAL
        assert found.refresh()
        assert not found.refresh()
    assert found.value == "second one"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


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
