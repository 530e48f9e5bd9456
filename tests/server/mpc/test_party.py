"""Halves and the two ends of a request, in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.errors import CorrelationMisuse, MalformedRequest, PeerFailure, ResourceExhausted
from secure_infer.heads import Head
from secure_infer_server.mpc import halves as module
from secure_infer_server.mpc.halves import Half, Halves, Start, Whereabouts, ask, asked
from secure_infer_server.mpc.serving import LONGEST_SECONDS, _seconds
from server.mpc.pair import Pair
from shared import hidden_head, unit_rows

ONE, TWO = b"1" * 16, b"2" * 16


def half(request_id: bytes = ONE) -> Half:
    return Half(request_id, "cn:a", "m", b"d", b"p", np.zeros((1, 2), np.uint64), time.monotonic() + 5)


# Halves.


def test_a_half_is_claimed_once() -> None:
    halves, own = Halves(), half()
    assert halves.whereabouts(ONE) is Whereabouts.UNKNOWN
    with halves.admitted(ONE):
        assert halves.whereabouts(ONE) is Whereabouts.UNKNOWN  # not ready yet
        halves.offer(own)
        assert halves.whereabouts(ONE) is Whereabouts.HERE
        assert halves.claim(ONE, 0) is own
        assert halves.whereabouts(ONE) is Whereabouts.GONE
        with pytest.raises(PeerFailure, match="refused, or given up"):
            halves.claim(ONE, 60)
    with pytest.raises(MalformedRequest, match="used before"), halves.admitted(ONE):
        pass


def test_a_half_that_never_comes_and_one_that_ended() -> None:
    halves = Halves()
    with pytest.raises(PeerFailure, match="did not come"):
        halves.claim(ONE, 0.01)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(halves.claim, ONE, 60)
        with pytest.raises(KeyError), halves.admitted(ONE):
            halves.offer(half(TWO))
            raise KeyError
        with pytest.raises(PeerFailure, match="refused, or given up"):
            waiting.result(10)


def test_a_half_that_comes_while_it_is_waited_for() -> None:
    halves, own, held = Halves(), half(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(halves.claim, ONE, 60)
        with halves.admitted(ONE):
            held.wait(0.05)
            halves.offer(own)
            assert waiting.result(10) is own


def test_requests_and_memory_of_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    halves = Halves()
    with halves.admitted(ONE):
        with pytest.raises(ResourceExhausted), halves.admitted(TWO):
            pass
        assert halves.whereabouts(TWO) is Whereabouts.GONE
    for k in range(9):
        with halves.admitted(bytes([k]) * 16):
            pass
    assert len(halves._seen) <= 3
    assert not halves._waiting
    assert not halves._under_way


def test_starts_and_questions() -> None:
    start = Start(half().binding, b"b" * 16, True)
    assert Start.unpack(start.pack()) == start
    assert asked(start.pack()) is None
    assert asked(ask(ONE)) == ONE
    deep = b"[" * 60_000
    for data in (b"", b"?", b"[]", b"{}", deep, b"\xff", start.pack()[:-1], start.pack().replace(b"true", b"1")):
        with pytest.raises(MalformedRequest):
            Start.unpack(data)


def test_errors_leave_before_the_callers_deadline() -> None:
    assert _seconds(None) == LONGEST_SECONDS - 0.25
    assert _seconds(1e9) == LONGEST_SECONDS - 0.25
    assert _seconds(10.0) == 9.75
    assert _seconds(1.0) == 0.9
    assert _seconds(-1.0) < 0


# Shared weights and their masks.


@pytest.fixture
def head() -> Head:
    return hidden_head((8, 4, 3))


@pytest.fixture
def pair(head: Head, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(head, tmp_path)
    yield made
    made.close()


def right(pair: Pair, head: Head) -> bool:
    x = unit_rows(3, 8)
    return bool(np.abs(pair.evaluate(x) - head.evaluate(x)).max() <= pair.program.error_bound)


def test_masks_are_opened_once_an_epoch(pair: Pair, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = pair.evaluators[0].open_masks
    monkeypatch.setattr(pair.evaluators[0], "open_masks", lambda *a: (opened.append(a[1]), original(*a)))
    for _ in range(2):
        for _ in range(3):
            assert right(pair, head)
        pair.epochs.begin()
    assert len(opened) == len(set(opened)) == 2


@pytest.mark.parametrize("party", [0, 1])
def test_an_opening_that_only_one_party_finished(
    pair: Pair, head: Head, party: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(link: Any, *_: object) -> None:
        sizes = sum(8 * rows * columns for rows, columns in pair.evaluators[party].mask_shapes.values())
        link.exchange(bytes(sizes))
        raise PeerFailure("peer: lost, after the last message of the opening")

    with monkeypatch.context() as patch:
        patch.setattr(pair.evaluators[party], "open_masks", lost)
        with pytest.raises(PeerFailure):
            right(pair, head)
    assert right(pair, head)
    assert right(pair, head)


def test_a_party_that_forgot_what_was_opened(pair: Pair, head: Head) -> None:
    assert right(pair, head)
    pair.evaluators[1]._opened.clear()
    with pytest.raises((CorrelationMisuse, PeerFailure)):
        right(pair, head)
    assert right(pair, head)


def test_a_request_is_led_again_when_its_other_half_comes_late(pair: Pair, head: Head) -> None:
    offer = pair.follower.halves.offer

    def late(own: Half) -> None:
        time.sleep(0.5)
        offer(own)

    pair.follower.halves.offer = late  # type: ignore[method-assign]
    assert right(pair, head)
    assert not pair.follower.halves._waiting


def test_a_half_whose_caller_has_gone_is_not_led(pair: Pair) -> None:
    own = half()
    own.model, own.model_digest = "m", pair.leader.models.get("m").digest
    own.share = np.zeros((1, 8), np.uint64)
    own.abandon()
    own.abandon()
    with pytest.raises(PeerFailure, match="gave it up"):
        pair.leader.answer(own)
    assert pair.leading.level == 2
