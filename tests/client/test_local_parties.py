"""The SDK against real processes: a dealer and two parties on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from secure_infer.errors import PeerFailure, ServerUnavailable
from secure_infer.heads import Head, ReLU
from secure_infer.mpc import sharefile
from secure_infer_client import Client
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_process import LocalProcess
from shared import hidden_head, linear_head, unit_rows

HEADS = {"affine": linear_head(8, 3), "square": hidden_head((8, 6, 3)), "relu": hidden_head((8, 6, 3), ReLU())}


@pytest.fixture(scope="module", params=["replicated", "shared"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalParties]:
    """Parties that both hold the weights, or each a share of them."""
    directories = [tmp_path_factory.mktemp(f"party-{party}") for party in (0, 1)]
    for name, head in HEADS.items():
        if request.param == "shared":
            sharefile.share_model(head, directories, name)
        for directory in directories:
            if request.param == "replicated":
                head.save(directory / f"{name}.head")
    with LocalParties(directories) as running:
        yield running


@pytest.mark.parametrize("name", HEADS)
def test_answers_of_real_parties(local: LocalParties, name: str) -> None:
    head = HEADS[name]
    assert local.models == sorted(HEADS)
    with Client(local.addresses, model=name, scheme="mpc") as client:
        for count in (1, 5, 300):
            x = unit_rows(count, 8, seed=count)
            assert np.abs(client.predict(x) - head.evaluate(x)).max() <= client.plan.error_bound
        client.predict(x[:1])
        stats, program = client.last_call.stats, client.plan
    assert stats.link_rounds == program.rounds
    assert stats.link_bytes == program.link_bytes(1)
    assert stats.correlation_bytes >= program.correlation_bytes(1)


def test_several_clients_at_once(local: LocalParties) -> None:
    x = unit_rows(20, 8)
    exact = HEADS["relu"].evaluate(x)

    def ask(index: int) -> float:
        with Client(local.addresses, model="relu", scheme="mpc") as client:
            return float(max(np.abs(client.predict(x[i : i + 1]) - exact[i]).max() for i in range(index, 20, 3)))

    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(ask, range(3))) < 1e-2


def test_a_lost_party_is_named_and_a_restarted_one_is_found(tmp_path: Path) -> None:
    head: Head = HEADS["square"]
    head.save(tmp_path / "m.head")
    x = unit_rows(1, 8)
    with LocalParties(tmp_path) as local, Client(local.addresses, model="m", scheme="mpc", timeout=10) as client:
        client.predict(x)
        lost_party = local.parties[1]
        lost_party.stop()
        with pytest.raises((ServerUnavailable, PeerFailure)) as lost:
            client.predict(x)
        assert any(address in str(lost.value) for address in local.addresses)
        command = ("party", "--id", "1", "--models", str(tmp_path), "--insecure", "--listen", lost_party.address)
        ways = ("--peer", str(local.parties[0].ready["peer"]), "--dealer", local.dealer.address)
        with LocalProcess("party 1 again", *command, *ways):
            assert np.abs(patiently(client, x) - head.evaluate(x)).max() <= client.plan.error_bound
        assert all(json.loads(line.partition(": ")[2]) for line in local.log().splitlines())


def patiently(client: Client, x: np.ndarray) -> np.ndarray:
    """The answer, once the parties have found each other again."""
    until = time.monotonic() + 15
    while True:
        try:
            return client.predict(x)
        except (ServerUnavailable, PeerFailure):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailable, match=r"party 0 did not start: .*holds no"):
        LocalParties(tmp_path)
