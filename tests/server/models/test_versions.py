"""Models by name and digest: what is answered, for how long, and what listeners know of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from secure_infer.errors import ModelChanged, SettingsError, UnknownModel
from secure_infer_server.models.model import require_messages_fit
from secure_infer_server.models.versions import Versions


@dataclass(frozen=True)
class Fake:
    name: str
    number: int
    obstacle: str = ""
    message_bytes: int = 10

    @property
    def digest(self) -> bytes:
        return bytes([self.number]) * 32


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made(kept: int = 2, grace: float = 10.0) -> tuple[Versions[Fake], Clock]:
    clock = Clock()
    return Versions({"m": Fake("m", 1), "n": Fake("n", 9)}, {"bad": "torn"}, grace=grace, kept=kept, clock=clock), clock


def answered(versions: Versions[Fake], name: str = "m") -> list[int]:
    found = []
    for number in range(1, 9):
        try:
            found.append(versions.version(name, Fake(name, number).digest).number)
        except (ModelChanged, UnknownModel):
            continue
    return found


def test_a_version_before_is_answered_until_its_time_is_over() -> None:
    versions, clock = made()
    versions.replace(Fake("m", 2))
    assert versions.get("m").number == 2
    assert answered(versions) == [1, 2]
    assert [each.number for each in versions.versions("m")] == [2, 1]
    clock.now = 9.9
    versions.expire()
    assert answered(versions) == [1, 2]
    clock.now = 10.0
    versions.expire()
    assert answered(versions) == [2]
    with pytest.raises(ModelChanged, match="pinned 010101010101…, served is 020202020202…"):
        versions.version("m", Fake("m", 1).digest)


def test_as_many_versions_are_kept_as_may_be() -> None:
    versions, _ = made(kept=2)
    for number in (2, 3, 4, 5):
        versions.replace(Fake("m", number))
    assert answered(versions) == [3, 4, 5]
    assert versions.readiness("m").earlier == 2
    none, _ = made(kept=0)
    none.replace(Fake("m", 2))
    assert answered(none) == [2]
    at_once, _ = made(grace=0.0)
    at_once.replace(Fake("m", 2))
    assert answered(at_once) == [2]


def test_an_earlier_version_that_comes_back_is_the_same_one() -> None:
    versions, _ = made()
    first = versions.get("m")
    versions.replace(Fake("m", 2))
    versions.hold_back("m", "torn")
    versions.restore("m", first.digest)
    assert versions.get("m") is first
    assert answered(versions) == [1, 2]
    assert not versions.held_back


def test_a_model_whose_file_is_gone_is_offered_to_nobody_and_answered_for_a_while() -> None:
    versions, clock = made()
    versions.remove("m")
    assert versions.names() == ["n"]
    with pytest.raises(UnknownModel):
        versions.get("m")
    assert answered(versions) == [1]
    found = versions.readiness("m")
    assert (found.ready, found.earlier, found.reason) == (False, 1, "its file was removed")
    clock.now = 11.0
    versions.expire()
    assert answered(versions) == []
    with pytest.raises(UnknownModel):
        versions.readiness("m")


def test_what_is_wrong_is_said() -> None:
    versions, _ = made()
    assert versions.rejected == {"bad": "torn"}
    with pytest.raises(UnknownModel, match="'bad' is not served: torn"):
        versions.get("bad")
    assert versions.readiness("bad").reason == "torn"
    versions.hold_back("m", "changed by somebody")
    found = versions.readiness("m")
    assert (found.ready, found.digest, found.reason) == (True, Fake("m", 1).digest, "")
    assert (found.held_back, versions.held_back) == ("changed by somebody", {"m": "changed by somebody"})
    assert found.since > 1.7e9
    versions.replace(Fake("m", 2, obstacle="no plan"))
    found = versions.readiness("m")
    assert (found.ready, found.reason, found.held_back) == (False, "no plan", "")


def test_an_unknown_model_is_not_answered_with_a_long_list() -> None:
    versions = Versions({f"model-{i:03}": Fake(f"model-{i:03}", 1) for i in range(500)}, {})
    with pytest.raises(UnknownModel, match="model-007 and 492 more") as caught:
        versions.get("x" * 1000)
    assert len(caught.value.message) < 300


def test_listeners_know_every_version_that_is_answered() -> None:
    versions, clock = made()
    told: list[set[int]] = []

    def listen(models: Sequence[Fake]) -> None:
        known = {model.number for model in models if model.name == "m"}
        assert set(answered(versions)) <= known
        told.append(known)

    versions.listen(listen)
    versions.replace(Fake("m", 2))
    clock.now = 11.0
    versions.expire()
    versions.remove("m")
    assert told == [{1}, {1, 2}, {1, 2}, {1, 2}, {2}, {2}, {2}]


def test_a_listener_that_refuses_leaves_everything_as_it_was() -> None:
    versions, _ = made()
    first: list[list[int]] = []
    versions.listen(lambda models: first.append(sorted(model.number for model in models)))
    versions.listen(lambda models: require_messages_fit(models, 100))
    with pytest.raises(SettingsError, match="messages of 101 bytes"):
        versions.replace(Fake("m", 2, message_bytes=101))
    assert answered(versions) == [1]
    assert first == [[1, 9], [1, 2, 9], [1, 9]]


def test_readers_never_see_a_model_missing() -> None:
    versions, _ = made(kept=8)
    ending, failed = threading.Event(), []

    def read() -> None:
        while not ending.is_set():
            try:
                found = versions.get("m")
                assert versions.version("m", found.digest).digest == found.digest
                assert [model.name for model in versions.models()] == ["m", "n"]
            except Exception as error:
                failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(300):
        versions.replace(Fake("m", 1 + number % 8))
    ending.set()
    for reader in readers:
        reader.join()
    assert not failed
