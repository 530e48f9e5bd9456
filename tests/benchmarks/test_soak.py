"""The soak sees what it is there to see: wrong and crossed answers, lost calls, growth; and a short one finds none."""

from __future__ import annotations

import numpy as np
import pytest

from secure_infer.errors import ServerUnavailable
from secure_infer_benchmarks.stress import soak_clients, soak_table
from secure_infer_benchmarks.stress.soak import CLIENTS, soak
from secure_infer_benchmarks.stress.soak_clients import KINDS, Caller, Mission
from secure_infer_benchmarks.stress.soak_watch import _grown, line


def caller(seconds: float = 0.0) -> Caller:
    return Caller(Mission("single", {}, {}, seconds, 1))


def test_wrong_answers_are_seen_and_those_of_others_told_apart() -> None:
    it = caller()
    it.check(it.expected[[3, 4]] + 1e-5, [3, 4], 1e-4)
    assert (it.tally.wrong, it.tally.crossed, it.tally.records) == (0, 0, 2)
    assert it.tally.worst == pytest.approx(0.1)
    it.check(it.expected[[5, 4]], [3, 4], 1e-4)
    assert (it.tally.wrong, it.tally.crossed) == (1, 1)
    it.check(np.full_like(it.expected[:1], np.nan), [0], 1e-4)
    assert (it.tally.wrong, it.tally.crossed) == (2, 1)


def test_errors_are_counted_by_reason_and_faults_by_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = iter([ServerUnavailable("gone"), ValueError("odd")])

    def ask(_: Caller) -> None:
        problem = next(problems, None)
        if problem is not None:
            raise problem

    monkeypatch.setattr(soak_clients, "PAUSE", 0.0)
    monkeypatch.setitem(KINDS, "single", ("cheap", ask))
    tally = Caller(Mission("single", {}, {}, 0.1, 1, pause=0.01)).run()
    assert tally.errors == {"SERVER_UNAVAILABLE": 1}
    assert tally.faults == {"ValueError: odd": 1}
    assert tally.answered == tally.asked - 2 == len(tally.calls_ms)


def test_growth_is_told_from_noise() -> None:
    noise = np.random.default_rng(0).normal(scale=1e6, size=600)
    for growth, flat in ((0.0, True), (1e5, False)):  # bytes a second, of 1e8
        samples = [(float(i), int(1e8 + growth * i + noise[i]), 9, 3) for i in range(600)]
        assert _grown("server", 1, samples)["flat"] is flat
    assert line(np.arange(5.0), 3 * np.arange(5.0))[0] == pytest.approx(3.0)


@pytest.mark.slow
def test_twenty_seconds_of_faults_lose_nothing() -> None:
    report = soak(20.0, CLIENTS, 7, pauses=(0.5, 1.5))
    assert report["sound"], soak_table.text(report)
    assert sum(report["faults"].values()) >= 3
    assert report["audit"]["status"] == 0, report["audit"]
    assert soak_table.markdown(report).startswith("# Soak")
