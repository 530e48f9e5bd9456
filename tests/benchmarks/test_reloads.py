"""The endurance run of models that change under a server that is killed, in short: the full one is a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secure_infer_benchmarks import reloads
from secure_infer_benchmarks.reloads import Endurance, Inconsistent


def test_servers_are_killed_and_answer_rightly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reloads, "UNREADY", 0.0)
    monkeypatch.setattr(reloads, "LONGEST", 0.5)
    reloads.main(["1", "7"])
    report = json.loads(capsys.readouterr().out)
    assert (report["kills"], report["seed"]) == (1, 7)
    assert report["answers"]


def test_what_nobody_wrote_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloads, "UNREADY", 0.0)
    endurance = Endurance(tmp_path, seed=1)
    endurance.known["steady"] = endurance.known["atomic"] = {}
    with pytest.raises(Inconsistent, match="was never written"):
        endurance.run(1)
