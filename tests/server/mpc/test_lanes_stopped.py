"""A party in another process that is stopped, continued and killed: the leader's errors are in time, lanes come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from secure_infer.errors import PeerFailure
from secure_infer_server.mpc.lane import Patience
from secure_infer_server.mpc.leader import LeaderLanes

FOLLOWER = """
import sys, time
from secure_infer_server.mpc.follower import FollowerLanes
from secure_infer_server.mpc.lane import Patience
lanes = FollowerLanes(
    sys.argv[1], None, lambda start, lane: lane.exchange(start), lanes=2, patience=Patience(1.0, 1.0, (0.01, 0.1))
)
lanes.start()
time.sleep(120)
"""


@pytest.fixture
def leader() -> Iterator[LeaderLanes]:
    lanes = LeaderLanes("127.0.0.1:0", None, lanes=2, patience=Patience(0.3, 1.0))
    lanes.start()
    yield lanes
    lanes.close()


def follower_of(leader: LeaderLanes) -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", FOLLOWER, leader.address])
    assert leader.wait_up(30)
    return started


def asked(leader: LeaderLanes, seconds: float = 20.0) -> bytes:
    with leader.lead(b"hello", time.monotonic() + seconds) as lane:
        return bytes(lane.exchange(b"hello"))


def test_stopped_continued_killed_and_started_again(leader: LeaderLanes) -> None:
    follower = follower_of(leader)
    try:
        assert asked(leader) == b"hello"
        follower.send_signal(signal.SIGSTOP)
        os.waitpid(follower.pid, os.WUNTRACED)  # until it has stopped
        for _ in range(2):
            with pytest.raises(PeerFailure, match="in time"):
                asked(leader)
        with pytest.raises(PeerFailure, match="0 of 2 up"):
            asked(leader, 0.1)
        follower.send_signal(signal.SIGCONT)
        assert asked(leader) == b"hello"
        follower.kill()
        follower.wait()
        with pytest.raises(PeerFailure, match="0 of 2 up"):
            asked(leader, 0.1)
        assert leader.level == 0
        follower = follower_of(leader)
        assert asked(leader) == b"hello"
    finally:
        follower.kill()
        follower.wait()


def test_a_party_killed_within_a_round(leader: LeaderLanes) -> None:
    follower = follower_of(leader)
    try:
        with pytest.raises(PeerFailure, match=r"closed|connection"):
            with leader.lead(b"12345678", time.monotonic() + 10) as lane:
                lane.exchange(b"abcdefgh")
                follower.kill()
                follower.wait()
                lane.exchange(b"abcdefgh")
    finally:
        follower.kill()
        follower.wait()
