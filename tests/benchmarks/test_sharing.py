"""The suite of secret sharing: the report's rows and its table, reasons in place of figures, and what rounds explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.heads import Head, Linear, ReLU, Square
from secure_infer.mpc.program import Answers, Weights
from secure_infer_benchmarks import delays, peers, sharing, sharing_table
from secure_infer_benchmarks.parties import Served
from secure_infer_benchmarks.peers import Peer
from secure_infer_benchmarks.sharing import Case, Settings
from secure_infer_benchmarks.synthetic import hidden_head, square_head

TIMES = {"median", "p90", "min"}


def test_each_round_takes_one_way_and_a_query_three_more() -> None:
    assert delays.explained(0.0, 1, 20.0) == 40.0
    assert delays.explained(4.0, 8, 20.0) - delays.explained(4.0, 7, 20.0) == 10.0


@pytest.mark.parametrize("rounds", range(1, 12))
def test_the_timeline_is_that_of_messages_that_wait_for_each_other(rounds: int) -> None:
    sent = [[1], [2]]  # in units of one way: party 0 sends when its half is there, party 1 when START is
    for _ in range(rounds - 1):
        first, second = sent[0][-1], sent[1][-1]
        sent[0].append(max(first, second + 1))
        sent[1].append(max(second, first + 1))
    done = max(sent[0][-1], sent[1][-1] + 1, sent[0][-1] + 1)
    assert delays.explained(0.0, rounds, 2.0) == done + 1


def test_progress_is_told_where_nobody_has_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(sharing.announced("asking", ["a", "b"], str.upper)) == ["a", "b"]
    assert capsys.readouterr().err == "asking A (1 of 2)\nasking B (2 of 2)\n"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """A linear head, and a ReLU with shared weights that answers with labels; few queries of each."""
    rng = np.random.default_rng(0)
    labels = list("abcd")
    first, last = Linear(rng.normal(size=(6, 16)) / 4), Linear(rng.normal(size=(4, 6)) / 4)
    plain = Served("linear", Head([Linear(rng.normal(size=(4, 16)) / 4)], labels=labels, input_bound=1.0))
    hidden = Head([first, ReLU(), last], labels=labels, input_bound=1.0)
    label = Served("relu-label", hidden, Weights.SHARED, Answers.LABEL)
    cases = [Case(plain, delayed=True), Case(label), Case(plain, records=256)]
    return sharing.measure(cases, Settings(rounds=6, delayed=3, stock_seconds=0.1), [Peer("nobody", python="3.11")])


def test_rows_hold_what_a_query_took_and_what_its_answers_are_worth(report: dict[str, Any]) -> None:
    assert list(report["cases"]) == ["linear", "relu-label", "linear, 256 records"]
    linear, label, batch = report["cases"].values()
    for row in (linear, label, batch):
        assert row["client_ms"].keys() == TIMES
        assert 0 < row["client_ms"]["min"] <= row["client_ms"]["median"] <= row["client_ms"]["p90"]
        assert row["ratio_to_plaintext"] == row["client_ms"]["median"] / row["plaintext_ms"]["median"]
        assert row["agreement_beyond_twice_the_bound"] == 1
        assert row["parties_ms"] > row["waiting_ms"] >= 0
        assert 0 < row["error_bound"] <= 1e-3
        assert row["fraction_bits"] > 8
        assert row["retries"] == 0
    assert (linear["head"], label["head"]) == ("16 -> 4", "16 -> 6 -> 4")
    assert linear["max_logit_error"] <= linear["error_bound"]
    assert (linear["rounds"], linear["link_bytes"], linear["correlation_bytes"]) == (1, 0, 0)
    assert label["max_logit_error"] is None
    assert label["rounds"] == 8  # one a layer, three for the ReLU, three for the label
    assert (linear["comparisons"], label["comparisons"]) == (None, "tables")
    assert batch["bytes_up"] > 2 * 256 * 16 * 8
    assert (linear["queries"], batch["queries"], batch["records"]) == (6, 2, 256)


def test_a_link_with_a_delay_is_beside_what_rounds_explain(report: dict[str, Any]) -> None:
    row = report["delays"]["cases"]["linear"]
    assert "reason" not in row, row
    assert row["measured_ms"].keys() == row["loopback_ms"].keys() == TIMES
    assert row["explained_ms"] == row["loopback_ms"]["median"] + 40
    assert row["measured_ms"]["min"] > 40
    assert row["agreement_beyond_twice_the_bound"] == 1


def test_the_table_has_every_row_and_says_why_figures_are_missing(report: dict[str, Any]) -> None:
    reason = {"cases": {**report["cases"], "absent": {"reason": "not installed here"}}}
    text = sharing_table.table(report | reason)
    assert text.count("\nlinear, 256 records") == 2
    assert "absent                      no figures: not installed here" in text
    assert "nobody, linear: no figures: peers are in the source tree" in text
    assert "every link 20 ms there and back" in text
    assert json.loads(json.dumps(report)) == report


def test_stock_answers_stand_beside_ours(monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]) -> None:
    """One figure of a peer for each way to ask: head, weights, answers, records."""
    asked: list[tuple[str, ...]] = []

    def run(peer: Peer, workload: Path, seconds: float = 0.0, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        with np.load(workload) as file:
            asked.append((str(file["activation"]), *options[2:8]))
        times = {"median": 4.0, "lowest": 3.0, "highest": 5.0}
        return [{"peer": peer.name, "server_ms": times, "client_ms": times}]

    monkeypatch.setattr(peers, "run", run)
    square = Served("square", square_head(8, 3, 2))
    relu = Served("relu", hidden_head(8, 3, 2, ReLU()), Weights.SHARED)
    cases = [Case(square), Case(square, records=256), Case(relu)]
    found = sharing.beside(cases, Settings(), [Peer("stock")])
    assert [row[0]["client_ms"] for row in found.values()] == [{"median": 8.0, "min": 6.0}] * 3
    assert asked == [
        ("square", "--weights", "public", "--answers", "logits", "--batch", "1"),
        ("square", "--weights", "public", "--answers", "logits", "--batch", "256"),
        ("relu", "--weights", "shared", "--answers", "logits", "--batch", "1"),
    ]


def test_every_published_row_is_a_head_that_parties_evaluate() -> None:
    cases = sharing.cases()
    assert len({case.name for case in cases}) == len(cases)
    assert {layer.kind for case in cases for layer in case.served.head.layers} >= {"linear", Square().kind, ReLU().kind}
    for case in cases:
        if case.served.comparisons != "crypten":
            peers.dense(case.served.head.layers)
