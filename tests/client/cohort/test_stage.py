"""Commits under kills: whatever instruction a process dies at, the next one makes the file that an undisturbed one makes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import SettingsError
from secure_infer_client import durable
from secure_infer_client.cohort.checkpoint import Checkpoint, identity
from secure_infer_client.cohort.rows import Place
from secure_infer_client.cohort.stage import Stage

JOB = {"input sha256": "00", "model digest": "11"}
HEADER = b"row,label\n"


class Killed(BaseException):
    """No handler of `Exception` runs, as none runs after SIGKILL."""


class Kill:
    """Counts what `durable` does and dies at the given step; a write may have reached the disk in part."""

    def __init__(self, at: int, part: float) -> None:
        self.left, self.part = at, part
        self.before = {name: getattr(durable, name) for name in ("write", "sync", "cut", "rename", "sync_directory")}

    def __enter__(self) -> None:
        for name, function in self.before.items():
            setattr(durable, name, self._counted(name, function))

    def __exit__(self, *_: object) -> None:
        for name, function in self.before.items():
            setattr(durable, name, function)

    def _counted(self, name, function):
        def step(*arguments):
            self.left -= 1
            if self.left < 0:
                if name == "write":
                    os.write(arguments[0], arguments[1][: int(self.part * len(arguments[1]))])
                raise Killed
            return function(*arguments)

        return step


def convert(partial: Path, out: Path) -> None:
    durable.replace(out, b"made of " + partial.read_bytes())


def run(out: Path, rows: int, chunk: int, with_conversion: bool) -> Checkpoint:
    """Rows 1 to `rows`, each third rejected; from wherever the checkpoint says."""
    with Stage(out, JOB, header=HEADER) as stage:
        if not stage.checkpoint.complete:
            while (start := stage.checkpoint.place.number) < rows:
                numbers = range(start + 1, min(rows, start + chunk) + 1)
                answers = b"".join(b"%d,a\n" % n for n in numbers if n % 3)
                rejected = b"".join(b'{"row": %d}\n' % n for n in numbers if not n % 3)
                scored = stage.checkpoint.scored + sum(1 for n in numbers if n % 3)
                stage.commit(answers, rejected, place=Place(numbers[-1], numbers[-1]), scored=scored)
            stage.commit(b"", b"", complete=True)
        stage.finish(convert if with_conversion else None)
        return stage.checkpoint


@settings(max_examples=100)
@given(
    rows=st.integers(0, 12),
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    kills=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), max_size=4),
    with_conversion=st.booleans(),
)
def test_killed_anywhere_nothing_is_lost_or_twice(
    rows: int, chunks: list[int], kills: list[tuple[int, float]], with_conversion: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory, patch("os.fsync"):
        out = Path(directory) / "out.csv"
        done = None
        for number, (at, part) in enumerate(kills):
            try:
                with Kill(at, part):
                    done = run(out, rows, chunks[number % len(chunks)], with_conversion)
                break
            except Killed:
                found = Checkpoint.load(out.with_name("out.csv.checkpoint"))
                if out.exists() and found is None:  # after the last step but one
                    break
                assert not out.exists() or (found and found.complete)
        if not out.exists() or Checkpoint.load(out.with_name("out.csv.checkpoint")):
            done = run(out, rows, chunks[-1], with_conversion)
        expected = HEADER + b"".join(b"%d,a\n" % n for n in range(1, rows + 1) if n % 3)
        assert out.read_bytes() == (b"made of " if with_conversion else b"") + expected
        rejected = [n for n in range(1, rows + 1) if not n % 3]
        listed = out.with_name("out.csv.rejected.jsonl")
        assert [json.loads(line)["row"] for line in listed.read_bytes().splitlines()] == rejected if rejected else True
        assert listed.exists() == bool(rejected)
        assert done is None or done.scored == rows - len(rejected)
        left = {path.name for path in Path(directory).iterdir()} - {out.name, listed.name}
        assert left <= {"out.csv.checkpoint.new"}


def test_every_single_step(tmp_path: Path) -> None:
    """The same, without luck: a kill at step 0, 1, 2, ... of an undisturbed run."""
    steps = 0
    while True:
        out = tmp_path / str(steps) / "out.csv"
        out.parent.mkdir()
        try:
            with Kill(steps, 0.5):
                run(out, 5, 2, False)
        except Killed:
            if not out.exists() or Checkpoint.load(out.with_name("out.csv.checkpoint")):
                run(out, 5, 2, False)
            assert out.read_bytes() == HEADER + b"1,a\n2,a\n4,a\n5,a\n"
            steps += 1
            continue
        break
    assert steps > 20


def begun(out: Path) -> None:
    """A run that was killed after its first chunk."""
    with Stage(out, JOB, header=HEADER) as stage:
        stage.commit(b"1,a\n", b'{"row": 2}\n', place=Place(2, 20), scored=1, rejected=1)


def test_another_job_is_refused_and_restart_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    begun(out)
    with pytest.raises(SettingsError, match=r"1 rows are scored.*model digest \(11 then, 22 now\).*--restart"):
        Stage(out, JOB | {"model digest": "22"})
    with Stage(out, JOB | {"model digest": "22"}, restart=True) as stage:
        assert stage.checkpoint.place == Place()
        assert not stage.partial.read_bytes()


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    run(out, 3, 2, False)
    for path in (out, out.with_name("out.csv.rejected.jsonl")):
        with pytest.raises(SettingsError, match="nothing was overwritten"):
            Stage(out, JOB)
        path.unlink()
    Stage(out, JOB).close()
    with pytest.raises(SettingsError, match="cannot be written"):
        Stage(tmp_path / "none" / "out.csv", JOB)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Stage(tmp_path / "out.csv", JOB):
        with pytest.raises(SettingsError, match="another process"):
            Stage(tmp_path / "out.csv", JOB)


def test_staged_files_that_were_cut_and_broken_checkpoints(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    begun(out)
    os.truncate(tmp_path / "out.csv.partial", 3)
    with pytest.raises(SettingsError, match="expected at least"):
        Stage(out, JOB)
    for content in (b"", b"{}", b'{"version": 1}', b'{"version": 1, "job": {}, "place": {}, "else": 1}'):
        (tmp_path / "out.csv.checkpoint").write_bytes(content)
        with pytest.raises(SettingsError, match="no checkpoint"):
            Stage(out, JOB)


def test_files_are_their_owners(tmp_path: Path) -> None:
    begun(tmp_path / "out.csv")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_identity_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"a" * (3 << 20))
    before = identity(path)
    path.write_bytes(b"a" * ((3 << 20) - 1) + b"b")
    assert identity(path)[0] == before[0]
    assert identity(path)[1] != before[1]
