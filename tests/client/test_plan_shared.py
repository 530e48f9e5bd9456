"""What `plan --scheme mpc` says a request takes, held to what requests really take."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.parties import Parties
from secure_infer.ckks.link import Link
from secure_infer.heads import ReLU
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.program import Answers, Comparisons, Weights
from secure_infer_client import Client
from secure_infer_client.commands import plan
from secure_infer_client.planning.shared_work import Kind, Taken, taken
from shared import hidden_head, linear_head, unit_rows

HEADS = {"affine": linear_head(8, 3), "square": hidden_head((8, 6, 3)), "relu": hidden_head((8, 6, 3), ReLU())}
HEADERS = 400
"""Bytes of ids, digests and names in both messages of a request; less than that."""


@pytest.mark.parametrize("answers", Answers)
@pytest.mark.parametrize("weights", Weights)
def test_what_is_said_is_what_is_taken(weights: Weights, answers: Answers) -> None:
    with Parties(HEADS, weights, answers) as running:
        for name in HEADS:
            with Client(running.addresses, model=name, scheme="mpc") as client:
                for records in (1, 3, 300):
                    client.decide(unit_rows(records, 8))
                    stats, said = client.last_call.stats, taken(client.plan, records, 256)
                    assert stats.rounds == said.requests == 1 + (records > 256)
                    assert 0 < stats.bytes_up - said.bytes_up < HEADERS * said.requests
                    assert 0 < stats.bytes_down - said.bytes_down < HEADERS * said.requests
                    assert stats.link_bytes == said.link_bytes
                    dealt = client.plan.recipe(1) is not None
                    assert stats.link_rounds == (said.rounds if dealt else 0)
                    assert said.correlation_bytes == (stats.correlation_bytes if dealt else 0)
                    assert said.compute is not None
                    assert said.compute > 0


def test_estimates_add_up() -> None:
    """Worked example: 2 requests of 3 rounds on a link of 1 ms and 8 Mbit/s, a byte a microsecond."""
    work = Taken(300, 2, 6, 1000, 500, 2000, 64, (Kind("square", 2, 0),), 0.01)
    assert work.seconds(Link.parse("8mbit,1ms")) == pytest.approx(0.001 + 0.0005 + 0.002 + 2e-3 + 4e-3 + 0.01)


def test_crypten_is_not_measured_here() -> None:
    program = compile_head(HEADS["relu"], comparisons=Comparisons.CRYPTEN).program
    found = taken(program, 1, 256)
    assert found.compute is None
    assert found.rounds > 3
    assert found.seconds(Link.parse("lan")) > 0


def printed(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, *options: str) -> str:
    HEADS[name].save(tmp_path / f"{name}.head")
    assert plan.run(["--scheme", "mpc", str(tmp_path / f"{name}.head"), *options]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_crypten_is_said_to_take_more_and_to_fail_unseen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = printed(capsys, tmp_path, "relu", "--comparisons", "crypten")
    for words in ("comparisons by CrypTen", "at least", "without computing", "in range after CrypTen's ReLU, unseen"):
        assert words in shown
    shown = printed(capsys, tmp_path, "relu")
    assert "comparisons by tables" in shown
    assert "which the client sees and asks again" in shown
    assert "at least" not in shown


def test_only_affine_heads_are_given_away_by_as_many_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "give an affine head away" in printed(capsys, tmp_path, "affine")
    assert "affine head" not in printed(capsys, tmp_path, "square")


@pytest.mark.parametrize("options", [["--target", "--help"], ["--scheme", "mpc", "--target", "--help"]])
def test_help_on_what_targets_take(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        plan.run(options)
    assert ended.value.code == 0
    assert "--root-certificates" in capsys.readouterr().out
