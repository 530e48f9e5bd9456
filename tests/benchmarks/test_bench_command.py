"""Several suites as one report: one that fails, and a run that ended early, lose nothing of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer_benchmarks import command, figures

asked: list[str] = []


class Made:
    """Two suites of a group; the second fails until `sound`."""

    sound = False

    @classmethod
    def first(cls, quick: bool) -> figures.Suite:
        asked.append("first")
        return {"rows": [{"id": "a", "figures": {"call_ms": figures.figure([1.0])}, "counts": {}}]}

    @classmethod
    def second(cls, quick: bool) -> figures.Suite:
        asked.append("second")
        if not cls.sound:
            raise RuntimeError("the machine caught fire")
        return {"rows": []}


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    asked.clear()
    Made.sound = False
    monkeypatch.setattr(command.Measured, "load", lambda self: (getattr(Made, self.module), lambda suite: "a table\n"))
    made = {name: command.Measured(name, f"the {name} suite") for name in ("first", "second")}
    monkeypatch.setattr(command, "SUITES", made)
    monkeypatch.setattr(command, "GROUPS", {"quick": ("first", "second")})


def test_a_suite_that_fails_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    assert command.run(["--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "the first suite\na table\n" in said.out
    assert "second failed: RuntimeError" in said.out
    assert "second (2 of 2)" in said.err
    assert json.loads(out.read_bytes())["suites"]["first"]["rows"]

    Made.sound = True
    assert command.run(["--out", str(out), "--resume"]) == 0
    assert asked == ["first", "second", "second"]
    assert "failed" not in json.loads(out.read_bytes())["suites"]["second"]


def test_by_itself_it_fails_as_it_does(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="caught fire"):
        command.run(["--suite", "second"])


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    assert command.run(["--suite", "first", "--out", str(out)]) == 0
    with pytest.raises(SettingsError, match="was begun with command 'secure-infer bench --suite first'"):
        command.run(["--out", str(out), "--resume"])
    with pytest.raises(SettingsError, match="got no --out"):
        command.run(["--resume"])
