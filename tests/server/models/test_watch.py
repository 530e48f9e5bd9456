"""A directory that is watched: what is taken over, what is held back, and what changes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Set
from functools import partial
from pathlib import Path

import pytest

from secure_infer.errors import InvalidHead, UnknownModel
from secure_infer_server.models import aside
from secure_infer_server.models.directory import scan
from secure_infer_server.models.serials import Serials
from secure_infer_server.models.versions import Versions
from secure_infer_server.models.watch import First, Read, Watch
from server.models.test_versions import Fake


class Files:
    """Files that hold a number, or words that are no model."""

    def __init__(self, directory: Path, **numbers: str) -> None:
        self.directory, self.read = directory, []
        for name, text in numbers.items():
            self.write(name, text)
        first = First[Fake].read(scan(directory, (".head",)), self, Serials(), (InvalidHead,))
        self.versions = Versions(first.models, first.rejected, grace=10.0, kept=2, stamps=first.stamps)
        self.watch = Watch(directory, (".head",), self.versions, self, Serials(), 0.0, process=False)
        self.read.clear()

    def __call__(self, file: Path, known: Set[bytes], newest: int) -> Read[Fake]:
        self.read.append(file.stem)
        text = file.read_text()
        if not text.isdigit():
            raise InvalidHead(f"{file.name}: not a number")
        model = Fake(file.stem, int(text))
        return Read(model.digest, 0, None if model.digest in known else model)

    def write(self, name: str, text: str) -> None:
        (self.directory / f"{name}.head").write_text(text)

    def look(self, times: int = 2) -> dict[str, int]:
        for _ in range(times):
            self.watch.look()
        return {model.name: model.number for model in self.versions.models()}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, a="1", b="2", torn="x")


def test_what_stays_is_not_read_again(files: Files) -> None:
    assert files.look(5) == {"a": 1, "b": 2}
    assert files.versions.rejected == {"torn": "torn.head: not a number"}
    assert files.read == []


def test_a_change_is_taken_over_once_two_looks_saw_it_the_same(files: Files) -> None:
    files.write("a", "3")
    files.write("new", "4")
    assert files.look(1) == {"a": 1, "b": 2}
    files.write("a", "35")  # somebody is writing
    assert files.look(1) == {"a": 1, "b": 2, "new": 4}
    assert files.look(1) == {"a": 35, "b": 2, "new": 4}
    files.look(3)
    assert files.read == ["new", "a"]
    assert files.versions.version("a", Fake("a", 1).digest).number == 1


def test_a_bad_file_never_takes_down_a_good_one(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.write("a", "three")
    assert files.look() == {"a": 1, "b": 2}
    assert files.versions.held_back == {"a": "a.head: not a number"}
    assert files.versions.readiness("a").ready
    files.look(4)
    assert [record.getMessage() for record in caplog.records] == [
        "model a: a.head: not a number; the version before stays"
    ]
    files.write("a", "3")
    assert files.look() == {"a": 3, "b": 2}
    assert files.versions.held_back == {}


def test_a_file_that_was_torn_is_served_once_it_is_whole(files: Files) -> None:
    files.write("torn", "7")
    assert files.look() == {"a": 1, "b": 2, "torn": 7}


def test_a_file_that_changes_while_it_is_read_is_read_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("a", "3")
    files.look(1)

    def meanwhile(file: Path, known: Set[bytes], newest: int) -> Read[Fake]:
        found = files(file, known, newest)
        files.write("a", "44")
        return found

    monkeypatch.setattr(files.watch, "_read", meanwhile)
    assert files.look(1)["a"] == 1
    monkeypatch.setattr(files.watch, "_read", files)
    assert files.look()["a"] == 44


def test_a_file_that_is_replaced_in_two_steps_is_never_missing(files: Files) -> None:
    (files.directory / "a.head").unlink()
    assert files.look(1) == {"a": 1, "b": 2}
    files.write("a", "3")
    assert files.look() == {"a": 3, "b": 2}


def test_a_removed_file_is_no_longer_offered(files: Files) -> None:
    (files.directory / "a.head").unlink()
    (files.directory / "torn.head").unlink()
    assert files.look() == {"b": 2}
    assert files.versions.rejected == {}
    with pytest.raises(UnknownModel):
        files.versions.get("a")
    assert files.versions.version("a", Fake("a", 1).digest).number == 1
    files.write("a", "1")
    assert files.look() == {"a": 1, "b": 2}


def test_a_directory_that_went_away_changes_nothing(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    moved = files.directory.rename(files.directory.with_name("elsewhere"))
    assert files.look(3) == {"a": 1, "b": 2}
    files.directory.mkdir()
    assert files.look(3) == {"a": 1, "b": 2}
    files.directory.rmdir()
    moved.rename(files.directory)
    assert files.look() == {"a": 1, "b": 2}
    assert len(caplog.records) == 2  # that it cannot be read, and that it is empty


def test_what_nobody_foresaw_is_a_reason_too(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Read[Fake]:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(files.watch, "_read", fail)
    files.write("a", "3")
    files.write("b", "4")
    assert files.look() == {"a": 1, "b": 2}
    assert files.versions.held_back == dict.fromkeys(("a", "b"), "it could not be read (ZeroDivisionError)")


def test_hidden_files_are_somebody_elses(files: Files) -> None:
    (files.directory / ".a.head").write_text("8")
    (files.directory / "a.head.tmp").write_text("8")
    assert files.look() == {"a": 1, "b": 2}


def test_it_looks_by_itself(tmp_path: Path) -> None:
    files = Files(tmp_path, a="1")
    watch = Watch(tmp_path, (".head",), files.versions, files, Serials(), 0.01, process=False)
    came = threading.Event()
    files.versions.listen(lambda models: came.set() if any(model.number == 2 for model in models) else None)
    watch.start()
    files.write("a", "2")
    assert came.wait(30)
    watch.close()
    assert files.versions.get("a").number == 2


# Reading in a process of its own.


def square(number: int) -> int:
    return number**2


def refuse() -> None:
    raise InvalidHead("no")


def test_work_aside_may_end_in_every_way() -> None:
    ending = threading.Event()
    assert aside.run(partial(square, 7), ending) == 49
    with pytest.raises(InvalidHead, match="exit code 3"):
        aside.run(partial(os._exit, 3), ending)
    ending.set()
    with pytest.raises(aside.Ended):
        aside.run(partial(square, 7), ending)


def test_refusals_cross_processes() -> None:
    with pytest.raises(InvalidHead, match=r"^no$"):
        aside.run(refuse, threading.Event())
