"""What is remembered of ids: for how long, and how many."""

from __future__ import annotations

from secure_infer_server.mpc.recent import Recent


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_id_is_remembered_for_its_time_and_not_for_ever() -> None:
    clock = Clock()
    seen = Recent(10.0, 1000, clock)
    added = {}
    for number in range(1000):
        clock.now = 0.5 * number
        added[b"%d" % number] = clock.now
        seen.add(b"%d" % number)
        ages = [clock.now - when for each, when in added.items() if each in seen]
        assert sum(clock.now - when < 10.0 for when in added.values()) <= len(ages)
        assert max(ages) <= 20.0


def test_what_is_held_is_bounded_and_settles() -> None:
    seen = Recent(most=100)
    held = []
    for number in range(1000):
        seen.add(b"%d" % number)
        held.append(len(seen))
        assert all(b"%d" % each in seen for each in range(max(0, number - 49), number + 1))
    assert max(held) == max(held[:100]) == 100
    assert b"0" not in seen


def test_after_a_pause_the_past_is_forgotten() -> None:
    clock = Clock()
    seen = Recent(10.0, 1000, clock)
    seen.update([b"1", b"2"])
    clock.now = 20.0
    seen.add(b"3")
    assert [each in seen for each in (b"1", b"2", b"3")] == [False, False, True]
