"""What lies outside the process and fails: counted each time, logged once a minute for each reason."""

from __future__ import annotations

import logging

import pytest

from secure_infer_server.trouble import QUIET_SECONDS, Trouble


def test_each_is_counted_and_one_a_minute_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    trouble = Trouble(logging.getLogger("secure_infer_server.test"), "full", "away", clock=lambda: now[0])
    assert trouble.counts == {"full": 0, "away": 0}
    for _ in range(5):
        trouble.meet("full", "the disk is full")
        now[0] += QUIET_SECONDS / 4
    trouble.meet("away", "nobody there")
    assert trouble.counts == {"full": 5, "away": 1}
    assert [record.message for record in caplog.records] == ["the disk is full", "the disk is full", "nobody there"]
