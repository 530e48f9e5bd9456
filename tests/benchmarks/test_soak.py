"""The soak sees what it is there to see: wrong and crossed answers, lost calls, growth; and a short one finds none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_infer.errors import ServerUnavailable, SettingsError
from secure_infer_benchmarks.stress import soak_clients, soak_table
from secure_infer_benchmarks.stress.soak import CLIENTS, run, soak
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


def flat(bytes_at: NDArray[np.float64]) -> bool | None:
    return _grown("server", 1, [(float(i), int(size), 9, 3) for i, size in enumerate(bytes_at)])["flat"]


def test_growth_is_told_from_noise_and_from_a_warm_up() -> None:
    second, rng = np.arange(620.0), np.random.default_rng(0)
    noise = 1e8 + rng.normal(scale=1e6, size=620)
    assert flat(noise) is True
    assert flat(noise + 1e5 * second) is False
    assert flat(1e8 + 2e7 * (1 - np.exp(-second / 60))) is True
    assert flat(noise[:470]) is None
    assert line(np.arange(5.0), 3 * np.arange(5.0))[0] == pytest.approx(3.0)


def test_a_slow_leak_in_steps_is_growth_and_a_level_that_moves_is_not() -> None:
    second = np.arange(620.0)
    for an_hour, found in ((0.02, True), (0.2, False), (0.5, False)):
        assert flat(1e8 + 2.6e5 * (1e8 * an_hour * second / 3600 // 2.6e5)) is found
    moves = np.random.default_rng(1)
    levels = [1e8 + 5e5 * np.repeat(moves.normal(size=31), 20) for _ in range(40)]  # another every 20 s
    assert sum(flat(level) is False for level in levels) <= 4


@pytest.mark.slow
def test_twenty_seconds_of_faults_lose_nothing() -> None:
    report = soak(20.0, CLIENTS, 7, pauses=(0.5, 1.5))
    assert report["sound"], soak_table.text(report)
    assert sum(report["faults"].values()) >= 3
    assert report["audit"]["status"] == 0, report["audit"]
    assert soak_table.markdown(report).startswith("# Soak")


def test_a_share_of_faults_is_a_share() -> None:
    with pytest.raises(SettingsError, match="--faulty: expected a share of the time from 0 to 1, got 2"):
        run(["--faulty", "2"])
