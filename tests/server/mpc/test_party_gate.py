"""Parties behind a gate, as real processes: rules, budgets and a log at each, and no role but a client's gets an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_infer.v1 import mpc_pb2
from server.mpc.processes import FEATURES, Deployment, small_heads
from server.mpc.raw_client import Client
from shared import unit_rows

TOTAL = 6
POLICY = """
[roles]
client = ["cn:*"]
[[allow]]
roles = ["client", "party:0"]   # a rule that is meant too well: roles are looked at besides
methods = ["*"]
"""
CONFIGURATION = f"""
[callers]
policy = "policy.toml"
[budgets]
path = "budgets.sqlite"
total = {TOTAL}
[audit]
directory = "log"
key = "audit.key"
commit = 0.0
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    path = tmp_path_factory.mktemp("gate")
    options = []
    for party in (0, 1):
        home = path / f"home-{party}"
        home.mkdir()
        (home / "policy.toml").write_text(POLICY)
        (home / "party.toml").write_text(CONFIGURATION)
        options.append(["--config", str(home / "party.toml")])
    with Deployment(path, small_heads(), options=(options[0], options[1])) as deployment:
        yield deployment
        assert "Traceback" not in deployment.logs()


def logged(running: Deployment, party: int) -> list[dict[str, object]]:
    """What was asked to be evaluated."""
    lines = (running.directory / f"home-{party}" / "log" / "audit-00000001.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if str(e.get("method", "")).endswith("InferShare")]


def refused(asking: Client, halves: list[mpc_pb2.InferShareRequest]) -> set[str]:
    """Why, by each party on its own."""
    return {asking.send({party: half})[party].reason for party, half in enumerate(halves)}


def test_roles_budgets_and_logs(running: Deployment) -> None:
    client = running.client()
    for posing in ("party0", "party1"):
        reasons = refused(running.client(posing), client.requests("linear", unit_rows(1, FEATURES, 1)))
        assert reasons <= {"PRIVACY_REFUSED", "PERMISSION_DENIED"}
    assert running.works(client, "linear", rows=TOTAL - 1)
    assert refused(client, client.requests("linear", unit_rows(2, FEATURES, 1))) == {"BUDGET_EXHAUSTED"}
    assert running.works(client, "linear")  # the last record
    assert refused(client, client.requests("linear", unit_rows(1, FEATURES, 1))) == {"BUDGET_EXHAUSTED"}
    assert running.works(client, "relu")  # another model has its own
    for process in running.parties:
        process.end()
    for party in (0, 1):
        found = [(e["who"], e["outcome"], e.get("records", 0)) for e in logged(running, party)]
        answered = [entry for entry in found if entry[1] == "ok"]
        who = answered[0][0]
        assert answered == [(who, "ok", TOTAL - 1), (who, "ok", 1), (who, "ok", 1)]
        assert [entry[1] for entry in found].count("BUDGET_EXHAUSTED") == 2


def test_a_party_says_what_it_does_not_understand(running: Deployment, tmp_path: Path) -> None:
    (tmp_path / "party.toml").write_text("[policies.relu]\nprivacy = 'both-private'\n")
    with pytest.raises(AssertionError, match=r"unknown key 'privacy'; expected answers, comparisons, error"):
        running.party(0, "127.0.0.1:0", ["--config", str(tmp_path / "party.toml")])
