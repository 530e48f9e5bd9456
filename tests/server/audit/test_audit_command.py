"""`secure-infer audit verify` and `export`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer_server.audit import AuditLog, AuditSettings, Event
from secure_infer_server.commands.audit import run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    audit = AuditLog(AuditSettings(tmp_path / "log", commit=0))
    for who in ("cn:hospital-a", "cn:hospital-b", "=HYPERLINK(1)", "cn:hospital-a"):
        audit.record(Event(who=who, method="Infer", outcome="ok", records=1))
    audit.close()
    return tmp_path / "log"


def test_verify_says_that_it_holds(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(directory)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("holds: 9 entries")
    assert "keep a copy elsewhere" in said
    assert run(["export", str(directory), "--public-key"]) == 0
    (tmp_path / "audit.pem").write_text(capsys.readouterr().out)
    assert run(["verify", str(directory), "--public-key", str(tmp_path / "audit.pem"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["entries"], report["notes"]) == (True, 9, [])
    anchor = f"{report['sequence']}:{report['hash']}"
    assert run(["verify", str(directory), "--anchor", anchor]) == 0
    assert run(["verify", str(directory), "--anchor", f"{report['sequence']}:{'0' * 64}"]) == 1


def test_verify_names_the_entry_that_was_changed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = directory / "audit-00000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"cn:hospital-b", b"hospital-c"))
    assert run(["verify", str(directory), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["entry"], problem["segment"], problem["line"]) == (5, 1, 5)
    assert run(["verify", str(directory)]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out


def test_export_selects(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(directory), "--who", "cn:hospital-a"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["who"] for line in lines] == ["cn:hospital-a"] * 2
    assert run(["export", str(directory), "--since", "2020-01-01", "--until", "2020-01-02T00:00:00+01:00"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["export", str(directory), "--since", lines[-1]["time"]]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["sequence"] == lines[-1]["sequence"]


def test_exported_lines_are_the_logs_own(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(directory)]) == 0
    assert capsys.readouterr().out == (directory / "audit-00000001.jsonl").read_text()


def test_a_spreadsheet_takes_no_cell_for_a_formula(directory: Path, tmp_path: Path) -> None:
    assert run(["export", str(directory), "--format", "csv", "--out", str(tmp_path / "log.csv")]) == 0
    assert (tmp_path / "log.csv").stat().st_mode & 0o777 == 0o600  # it says who asked what
    with (tmp_path / "log.csv").open(newline="") as file:
        found = [row["who"] for row in csv.DictReader(file) if row["kind"] == "call"]
    assert found == ["cn:hospital-a", "cn:hospital-b", "'=HYPERLINK(1)", "cn:hospital-a"]


def test_export_leaves_out_what_was_changed_and_says_so(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = directory / "audit-00000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"cn:hospital-b", b"hospital-c"))
    assert run(["export", str(directory)]) == 1
    said = capsys.readouterr()
    assert "hospital-c" not in said.out
    assert "line 5 of segment 1" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "nowhere"],
        ["verify", "LOG", "--anchor", "7"],
        ["verify", "LOG", "--first-segment", "0"],
        ["verify", "LOG", "--public-key", "LOG/audit.key"],
        ["export", "LOG", "--since", "yesterday"],
        ["export", "LOG", "--out", "LOG/none/x"],
        ["export", "LOG", "--out", "LOG/audit.head"],
        ["export", "LOG", "--who", "hospital-a"],
        ["export", "nowhere"],
    ],
)
def test_wrong_use_is_named(directory: Path, arguments: list[str]) -> None:
    with pytest.raises(SettingsError):
        run([argument.replace("LOG", str(directory)) for argument in arguments])
