"""Real processes killed and stopped while requests are under way: calls end in time and say why, and service comes back by
itself, with right answers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from server.mpc.load import Load
from server.mpc.processes import FEATURES, Deployment, small_heads
from server.mpc.raw_client import Answer
from shared import unit_rows

MODELS = ("linear", "square", "relu", "square-shared", "relu-label")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("faults")
    with Deployment(directory, small_heads(), ["square"], ["relu"]) as deployment:
        deployment.recovers(deployment.client(), MODELS)
        yield deployment
        for process in deployment.processes:
            assert process.end() == 0, deployment.logs()
        assert "Traceback" not in deployment.logs()
        assert "fault" not in deployment.logs(), deployment.logs()


@pytest.fixture(autouse=True)
def alive(running: Deployment) -> Iterator[None]:
    """Every test finds all that works, and leaves it so."""
    yield
    running.recovers(running.client(), MODELS)
    assert all(process.alive for process in running.processes)


@pytest.mark.parametrize("number", [0, 1])
def test_a_party_killed_and_started_again(running: Deployment, number: int) -> None:
    with Load(running, MODELS, threads=6) as load:
        load.goes_on()
        running.parties[number].kill()
        time.sleep(0.3)
        running.parties[number].start()
        running.recovers(running.client(), MODELS)
        load.goes_on()
    load.require_sound()
    assert load.failures


@pytest.mark.parametrize("number", [0, 1])
def test_a_party_stopped_and_continued(running: Deployment, number: int) -> None:
    other, client = 1 - number, running.client()
    with Load(running, MODELS, threads=6, seconds=1.5) as load:
        load.goes_on()
        with running.parties[number].stopped():
            for _ in range(4):
                assert client.serving(other)
                assert "linear" in client.listed(other)
                time.sleep(0.5)
            stalled = len(load.failures)
        running.recovers(client, MODELS)
        load.goes_on()
    load.require_sound()
    assert stalled


def test_the_dealer_stopped_and_continued(running: Deployment) -> None:
    client = running.client()
    running.fills()
    with running.dealer.stopped():
        found = until_dry(running, "relu")
        assert (found[0].reason, found[1].reason) == ("CORRELATIONS_EXHAUSTED", "PEER_FAILURE"), found
        assert running.works(client, "linear")  # takes no correlations
        assert client.serving(0)
        assert client.serving(1)


def test_the_dealer_killed_and_started_again(running: Deployment) -> None:
    client = running.client()
    running.fills()
    running.dealer.kill()
    for model in ("relu", "square-shared"):
        found = until_dry(running, model)
        assert found[0].status == "RESOURCE_EXHAUSTED", found
        assert found[0].reason == "CORRELATIONS_EXHAUSTED"
        assert "away" in found[0].message
        assert found[0].seconds < 3
    assert running.works(client, "linear")
    running.dealer.start()
    running.recovers(client, MODELS)
    for rows in (1, 100):
        assert running.works(client, "square-shared", rows, 10)
    assert running.dealer.log().count("begins") >= 2


def test_a_dealer_that_comes_back_under_load(running: Deployment) -> None:
    with Load(running, MODELS, threads=6) as load:
        load.goes_on()
        for _ in range(2):
            running.dealer.kill()
            running.dealer.start()
            running.recovers(running.client(), MODELS)
        load.goes_on()
    load.require_sound()


def until_dry(running: Deployment, model: str) -> dict[int, Answer]:
    """Ask with no dealer; requests work while bundles last. Returns how the first one failed that found none."""
    client, worked = running.client(), 0
    client.program(model)
    while True:
        x = unit_rows(1, FEATURES, worked)
        halves = client.requests(model, x)
        answers = client.send(dict(enumerate(halves)), 2.0)
        if answers[0].response is None:
            assert worked > 32
            return answers
        assert running.right(client, model, x, client.joined(model, halves[0].request_id, answers))
        worked += 1
        assert worked < 1000
