"""Servers and key stores that are killed at random moments, in short: the full run is `secure-infer stress kills`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secure_infer_benchmarks.stress import command, reload_kills
from secure_infer_benchmarks.stress.reload_kills import Endurance, Inconsistent


def test_servers_are_killed_and_answer_rightly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reload_kills, "UNREADY", 0.0)
    monkeypatch.setattr(reload_kills, "LONGEST", 0.5)
    assert command.run(["kills", "--kills", "1", "--seed", "7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sound"]
    assert (report["uploads"]["kills"], report["reloads"]["kills"], report["seed"]) == (1, 1, 7)
    assert report["reloads"]["answers"]


def test_what_nobody_wrote_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_kills, "UNREADY", 0.0)
    endurance = Endurance(tmp_path, seed=1)
    endurance.known["steady"] = endurance.known["atomic"] = {}
    with pytest.raises(Inconsistent, match="was never written"):
        endurance.run(1)
