"""The suite of links: rows, winners, predictions and table; each plan asked by itself; rates beside the kernel's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from secure_infer.ckks.link import Link
from secure_infer.heads import Head
from secure_infer.v1 import models_pb2
from secure_infer_benchmarks.network import suite as network
from secure_infer_benchmarks.network import table as network_table
from secure_infer_benchmarks.network import tbf as network_tbf
from secure_infer_benchmarks.network.suite import Emulated, Settings
from secure_infer_benchmarks.network.ways import OneOffer
from secure_infer_benchmarks.synthetic import square_head, unit_norm_head

WAYS = ("plaintext", "ckks", "mpc")


def small_heads() -> dict[str, Head]:
    return {network.LINEAR: unit_norm_head(16, 4), network.SQUARE: square_head(64, 8, 4)}


@pytest.fixture(scope="module")
def suite() -> dict[str, Any]:
    """Two small heads on one slow link, two queries of each way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "heads", small_heads)
        return network.run(Settings((Emulated("slow", 50, 10, 2),), (network.LINEAR, network.SQUARE), precise=False))


def test_every_way_has_a_row_that_says_what_it_took(suite: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in suite["rows"]}
    assert len(rows) == len(suite["rows"])
    for head in (network.LINEAR, network.SQUARE):
        here = [row for row in rows.values() if row["head"] == head]
        assert tuple(dict.fromkeys(row["scheme"] for row in here)) == WAYS
        assert [row["id"].split("/")[-1] for row in here if row["scheme"] == "mpc"] == [
            "replicated weights",
            "shared weights",
        ]
    for row in rows.values():
        figures, counts = row["figures"], row["counts"]
        assert row["link"] == {"name": "slow", "megabits": 50, "round_trip_ms": 10}
        assert min(figures["call_ms"]["samples"]) > 10
        assert figures["call_ms"]["repeats"] == figures["ratio"]["repeats"] == 2
        assert figures["first_call_ms"]["median"] > 10
        assert counts["predicted_ms"] > 10
        assert counts["bytes_up"] > 0 < counts["bytes_down"]
        assert counts["agreement"] == 1
        assert (counts["key_bytes"] > 0) == (row["scheme"] == "ckks")
        assert (counts["rounds"] > 0) == ("explained_ms" in counts) == (row["scheme"] == "mpc")
        if row["scheme"] == "plaintext":
            assert figures["ratio"]["median"] == 1


def test_every_plan_that_is_offered_is_asked_by_itself(suite: dict[str, Any]) -> None:
    """By what travelled: a client left to itself would take one of them each time."""
    for row in suite["rows"]:
        if row["scheme"] == "ckks":
            named = int(row["id"].split(", ")[1].split(" ")[0].replace(",", ""))
            assert 0 <= row["counts"]["bytes_up"] - named < 400


def test_shares_on_a_link_take_what_their_messages_wait(suite: dict[str, Any]) -> None:
    for row in suite["rows"]:
        if row["scheme"] == "mpc":
            counts = row["counts"]
            assert counts["explained_ms"] >= 5 * (3 + counts["rounds"])
            assert min(row["figures"]["call_ms"]["samples"]) >= 5 * (3 + counts["rounds"])


def test_the_forwarder_says_what_it_adds(suite: dict[str, Any]) -> None:
    found = suite["forwarder"]
    assert found.keys() == {"direct_call_ms", "forwarded_call_ms", "call_overhead_ms"}
    assert found["direct_call_ms"]["median"] > 0


def test_the_suite_is_json_and_its_table_has_every_row(suite: dict[str, Any]) -> None:
    assert json.loads(json.dumps(suite)) == suite
    text = network.table(suite)
    assert text.count("\n>") == 3  # a winner for each head, and what the sign means
    for row in suite["rows"]:
        assert row["id"].split("/", 2)[2] in text
    assert "slow, 50 Mbit/s, 10 ms: icd10-chapter-linear" in text
    assert text.count(" wins, ") == 2


def row_of(name: str, scheme: str, measured: float, predicted: float, link: str = "wan") -> dict[str, Any]:
    return {
        "id": f"{link}/head/{name}",
        "link": {"name": link},
        "head": "head",
        "scheme": scheme,
        "figures": {"call_ms": {"median": measured}},
        "counts": {"predicted_ms": predicted},
    }


def test_winners_are_private_and_their_regret_is_what_believing_the_prediction_costs() -> None:
    rows = [
        row_of("plaintext", "plaintext", 1, 1),
        row_of("a", "ckks", 30, 40),
        row_of("b", "ckks", 36, 35),
        row_of("c", "mpc", 20, 60),
        row_of("c", "mpc", 5, 5, link="lan"),
    ]
    wan, lan = network_table.winners(rows)
    assert wan == {
        "link": "wan",
        "head": "head",
        "measured": "wan/head/c",
        "predicted": "wan/head/b",
        "regret": 1.8,
        "ckks_measured": "wan/head/a",
        "ckks_predicted": "wan/head/b",
        "ckks_regret": 1.2,
    }
    assert lan == {"link": "lan", "head": "head", "measured": "lan/head/c", "predicted": "lan/head/c", "regret": 1.0}


@pytest.mark.parametrize(("share", "marked"), [(1.6, True), (1.4, False), (0.7, False), (0.6, True)])
def test_predictions_that_are_off_are_marked(share: float, marked: bool) -> None:
    assert ("!" in network_table.off(share, 1.0)) == marked


def test_published_links_are_those_of_the_planner() -> None:
    assert [one.link for one in Settings().links] == [
        Link.parse(text) for text in ("1gbit,500us", "100mbit,20ms", "20mbit,60ms")
    ]
    assert set(network.heads()) == set(network.SHARED_WAYS) == set(Settings().heads)


def test_one_offer_is_left_of_a_description_and_nothing_else_is_touched() -> None:
    digests = [bytes([number]) * 32 for number in range(3)]
    response = models_pb2.GetModelResponse(unit_costs="costs")
    for digest in digests:
        response.offers.add().plan.digest = digest

    class Call:
        def result(self) -> models_pb2.GetModelResponse:
            return response

    class Details:
        method = "/secure_infer.v1.ModelService/GetModel"

    class Other:
        method = "/secure_infer.v1.InferenceService/Infer"

    only, call = OneOffer(digests[1].hex()), Call()
    kept = only.intercept_unary_unary(lambda details, request: call, Details(), None).result()
    assert [offer.plan.digest for offer in kept.offers] == [digests[1]]
    assert kept.unit_costs == "costs"
    assert len(response.offers) == 3
    assert only.intercept_unary_unary(lambda details, request: call, Other(), None) is call


def test_the_kernels_rate_stands_beside_the_forwarders_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_tbf, "SECONDS", 0.1)
    found = network_tbf.compare(40.0)
    assert found["forwarder"] > 0
    assert ("tbf" in found) != ("reason" in found)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "tc" else f"/usr/bin/{name}")
    assert network_tbf.compare(40.0)["reason"] == "not installed here: tc"


def test_emulation_is_told_where_it_was_measured() -> None:
    late = {"median": 0.1, "quantile_05": 0.0, "quantile_95": 0.2}
    precision = {"lan": {"late_ms": late, "megabits": 990.0, "megabits_asked": 1000}}
    added = {"median": 0.2, "low": 0.1, "high": 0.3}
    kernel: dict[str, Any] = {"megabits": 100.0, "forwarder": 99.9, "tbf": 95.6}
    suite: dict[str, Any] = {"rows": [], "winners": []}
    text = network_table.table(
        suite | {"forwarder": {"call_overhead_ms": added, "precision": precision, "kernel": kernel}}
    )
    assert "lan: messages 0.10 ms late one way (0.00 to 0.20), 990.0 of 1000 Mbit/s arrive" in text
    assert "100 Mbit/s: 99.9 through the forwarder; 95.6 Mbit/s of payload through tbf" in text
    kernel = {"megabits": 100.0, "forwarder": 99.9, "reason": "not installed here: tc"}
    text = network_table.table(suite | {"forwarder": {"call_overhead_ms": added, "kernel": kernel}})
    assert "99.9 through the forwarder; not installed here: tc" in text
