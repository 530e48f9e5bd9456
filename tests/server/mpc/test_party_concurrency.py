"""Many requests at once at real processes: nothing mixes, nothing starves, and batches of every size are right."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.mpc.load import Load
from server.mpc.processes import FEATURES, Deployment, small_heads
from server.mpc.raw_client import outcome
from shared import unit_rows

MODELS = ("linear", "square", "relu", "square-shared", "relu-shared", "relu-label")
PATIENT = 60.0
"""Seconds; machines that run tests may be busy."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("many")
    with Deployment(directory, small_heads(), ["square", "relu"], ["relu"]) as deployment:
        deployment.recovers(deployment.client(), MODELS)
        yield deployment
        assert "Traceback" not in deployment.logs()


@pytest.mark.parametrize("model", MODELS)
def test_batches(running: Deployment, model: str) -> None:
    client = running.client()
    for rows in (1, 3, 100, 256):
        assert running.works(client, model, rows, PATIENT), running.logs()


def test_no_more_than_256(running: Deployment) -> None:
    client = running.client()
    answers = client.send(dict(enumerate(client.requests("relu", unit_rows(257, FEATURES)))))
    assert {a.reason for a in answers.values()} == {"MALFORMED_REQUEST"}


def test_mixed_models_and_sizes(running: Deployment) -> None:
    sizes, client = (1, 2, 3, 5, 16, 17, 64, 100, 256), running.client()

    def ask(number: int) -> str:
        rng = np.random.default_rng(number)
        for _ in range(15):
            model, rows = str(rng.choice(MODELS)), int(rng.choice(sizes))
            if not running.works(client, model, rows, PATIENT):
                return f"{rows} rows of {model}"
        return ""

    with ThreadPoolExecutor(8) as pool:
        failed = [found for found in pool.map(ask, range(8)) if found]
    assert not failed, running.logs()


def test_64_clients(running: Deployment) -> None:
    with Load(running, MODELS, threads=64, seconds=PATIENT) as load:
        load.goes_on(PATIENT, 256)
    assert not load.wrong
    assert not load.failures, Counter((a.status, a.message) for a in load.failures)


@pytest.mark.parametrize("model", ["relu", "square-shared"])
def test_halves_that_arrive_in_opposite_orders(running: Deployment, model: str) -> None:
    """More of them than lanes, and than a few threads: none waits for another's half for ever."""
    client = running.client()
    x = [unit_rows(1, FEATURES, k) for k in range(60)]
    halves = [client.requests(model, rows) for rows in x]
    started = time.monotonic()
    order = [(0, k) for k in range(len(x))] + [(1, k) for k in reversed(range(len(x)))]
    calls = {
        (party, k): client.parties[party].InferShare.future(halves[k][party], timeout=PATIENT) for party, k in order
    }
    for k, rows in enumerate(x):
        answers = {party: outcome(calls[party, k].result, started) for party in (0, 1)}
        found = client.joined(model, halves[k][0].request_id, answers)
        assert running.right(client, model, rows, found)


@pytest.mark.parametrize("party", [0, 1])
def test_lone_halves_keep_nobody_waiting(running: Deployment, party: int) -> None:
    """Eight callers who send one half only: lanes and threads stay free for the others."""
    client, ending = running.client("other"), threading.Event()

    def pester() -> None:
        while not ending.is_set():
            half = client.requests("relu", unit_rows(1, FEATURES, secrets.randbelow(100)))[party]
            call = client.parties[party].InferShare.future(half, timeout=10)
            outcome(call.result, time.monotonic())

    pests = [threading.Thread(target=pester, daemon=True) for _ in range(8)]
    for pest in pests:
        pest.start()
    with Load(running, MODELS, threads=4, seconds=PATIENT) as load:
        load.goes_on(PATIENT, 100)
    ending.set()
    for pest in pests:
        pest.join()
    client.close()
    assert not load.wrong
    assert not load.failures


def test_short_deadlines_harm_nobody_else(running: Deployment) -> None:
    client = running.client()
    client.program("relu")
    with Load(running, MODELS, threads=4, seconds=PATIENT) as load:
        for k in range(60):
            client.evaluate("relu", unit_rows(1, FEATURES, k), 0.0005 * (k % 20))
        load.goes_on(PATIENT)
    assert not load.wrong
    # A lane that was lost to a deadline took no other request with it.
    assert not load.failures, Counter((a.status, a.message) for a in load.failures)


def test_parties_that_are_asked_to_end_finish_what_they_have_begun(tmp_path: Path) -> None:
    with Deployment(tmp_path, {"relu": small_heads()["relu"]}) as deployment:
        client = deployment.client()
        deployment.recovers(client, ["relu"])
        halves = client.requests("relu", unit_rows(256, FEATURES))
        started = time.monotonic()
        calls = [client.parties[party].InferShare.future(halves[party], timeout=20) for party in (0, 1)]
        time.sleep(0.02)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda party: party.end(), deployment.parties)) == [0, 0]
        ends = {outcome(call.result, started).status for call in calls}
        assert ends <= {"OK", "ABORTED", "UNAVAILABLE", "CANCELLED"}
