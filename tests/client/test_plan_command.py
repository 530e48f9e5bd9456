"""`secure-infer plan`: for a file and for a server, one record and many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.ckks.batch.planner import choose as choose_batch
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.coefficient import planner as coefficient_planner
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.planner import Rejected
from secure_infer.errors import PlanRefused, PrivacyRefused, SettingsError, UnsupportedHead
from secure_infer.heads import Head, Linear, ReLU, Square
from secure_infer.heads.split import private_network
from secure_infer_client import Client
from secure_infer_client.choice import Offer
from secure_infer_client.commands import plan as command
from secure_infer_client.planning import costed, table
from secure_infer_client.planning.costed import Costed
from shared import linear_head

LAN = Link.parse("lan")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert command.run([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    found = json.loads(shown(capsys, *arguments, "--json"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def quadratic(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    layers = [Linear(rng.normal(size=(4, 12)) / 4), Square(), Linear(rng.normal(size=(2, 4)) / 4)]
    Head(layers, labels=["no", "yes"], input_bound=1.0, input_norm=1.0).save(tmp_path / "q.head")
    return tmp_path / "q.head"


# Files.


def test_a_quadratic_head(capsys: pytest.CaptureFixture[str], quadratic: Path) -> None:
    found = as_json(capsys, quadratic)
    assert found["widths"] == [12, 4, 2]
    assert found["activation_degrees"] == [2]
    assert found["chosen"] == found["candidates"][0]
    totals = [one["total_ms"] for one in found["candidates"]]
    assert totals == sorted(totals)
    assert {one["kind"] for one in found["candidates"]} == {"monomials", "slots"}
    for one in found["candidates"]:
        assert one["total_ms"] == pytest.approx(one["server_ms"] + one["client_ms"] + one["network_ms"])
        assert one["smudging_bits"] >= found["smudging_bits"] == 18
        assert one["error_bound"] <= found["error"]
    text = shown(capsys, quadratic)
    assert text.startswith("q: 12 -> 4 -> 2, activations of degree 2")
    assert "malformed slots" in text
    assert "> chosen: monomials" in text
    assert text.count("\n> ") == 2  # the row and what is said of it
    assert "rejected:" in text


def test_wishes_are_kept(capsys: pytest.CaptureFixture[str], quadratic: Path) -> None:
    found = as_json(capsys, quadratic, "--privacy", "input-private", "--error", "0.01", "--link", "10mbit,50ms")
    assert found["privacy"] == found["chosen"]["privacy"] == "input-private"
    assert found["link"] == "10mbit,50ms"
    assert found["error"] == 0.01
    assert found["chosen"]["network_ms"] > 50
    assert all("not hidden from the key holder" in one["consequence"] for one in found["consequences"])


def test_public_layers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    layers = [Linear(np.eye(6, 8)), ReLU(), Linear(np.ones((2, 6)))]
    Head(layers, labels=["no", "yes"], input_bound=1.0, public_layers=2).save(tmp_path / "split.head")
    text = shown(capsys, tmp_path / "split.head")
    assert "layers 1 to 2 (linear, relu): public, every client gets them and evaluates them; hidden: layer 3" in text
    assert text.startswith("split: 8 -> public layers -> 6 -> 2")


def test_a_head_that_cannot_fit(capsys: pytest.CaptureFixture[str], quadratic: Path) -> None:
    with pytest.raises(UnsupportedHead, match="12 -> 4 -> 2"):
        command.run([str(quadratic), "--error", "1e-20"])
    text = capsys.readouterr().out
    assert "rejected:" in text
    assert "times" in text
    with pytest.raises(UnsupportedHead):
        command.run([str(quadratic), "--error", "1e-20", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"] is None
    assert found["candidates"] == []
    assert all(one["reason"] for one in found["rejected"])


def test_a_layer_that_is_no_polynomial(tmp_path: Path) -> None:
    Head([Linear(np.eye(4)), ReLU()], labels=list("abcd"), input_bound=1.0).save(tmp_path / "relu.head")
    with pytest.raises(UnsupportedHead, match="relu"):
        command.run([str(tmp_path / "relu.head")])


@pytest.mark.parametrize(
    "wrong", [("--error", "0"), ("--error", "nan"), ("--smudging", "41"), ("--batch", "0"), ("--link", "fast")]
)
def test_wrong_options(quadratic: Path, wrong: tuple[str, str]) -> None:
    with pytest.raises(SettingsError):
        command.run([str(quadratic), *wrong])


# Servers.


def test_a_server(capsys: pytest.CaptureFixture[str], address: str, heads: dict[str, Head]) -> None:
    found = as_json(capsys, "--target", address, "--model", "wide", "--batch", "100")
    assert found["digest"] == heads["wide"].digest
    assert found["chosen"]["privacy"] == found["privacy"] == "both-private"
    assert all(one["offered"] for one in found["candidates"])
    assert found["rejected"] == []
    assert found["link"] == str(Link.parse("loopback"))
    assert "widths" not in found  # nothing of the weights is known here
    assert "largest_logit" not in found
    assert found["batch"]["records"] == 100
    text = shown(capsys, "--target", address, "--model", "wide", "--link", "wan")
    assert "which the server rounds up to a power of two" in text
    assert "100mbit,40ms" in text


def test_what_is_chosen_is_what_a_client_uses(capsys: pytest.CaptureFixture[str], address: str) -> None:
    for link in ("loopback", "mobile"):
        found = as_json(capsys, "--target", address, "--model", "small", "--link", link)
        with Client(address, model="small", link=link) as client:
            assert found["chosen"].items() >= json.loads(json.dumps(client.plan.as_dict())).items()


def test_the_level_that_is_asked_for(capsys: pytest.CaptureFixture[str], address: str) -> None:
    found = as_json(capsys, "--target", address, "--model", "public")
    assert found["chosen"]["privacy"] == "input-private"
    assert "not hidden" in found["consequences"][0]["consequence"]
    found = as_json(capsys, "--target", address, "--model", "public", "--privacy", "both-private")
    assert found["chosen"]["privacy"] == "both-private"
    with pytest.raises(PrivacyRefused):
        command.run(["--target", address, "--model", "small", "--privacy", "input-private"])


def test_a_model_without_a_plan(capsys: pytest.CaptureFixture[str], address: str) -> None:
    with pytest.raises(UnsupportedHead, match=r"no polynomial.*let two parties evaluate it: --scheme mpc"):
        command.run(["--target", address, "--model", "relu"])
    assert capsys.readouterr().out.startswith("relu: 8 -> 2 (linear, relu, linear)")


def test_what_a_server_offers(heads: dict[str, Head]) -> None:
    one, many = single(heads["small"]).plan, batch(heads["small"], 1.0).plan
    costs = unit_costs().to_json()
    found = costed.of_offers([Offer(many, 2.0), Offer(one, 0.5), Offer(one, 0.25)], costs, LAN)
    assert [way.cost.server for way in found[0]] == [0.25, 0.5]
    assert [way.kind for way in found[1]] == ["batch"]
    for wrong in (float("nan"), -1.0):
        with pytest.raises(PlanRefused, match="expected at most"):
            costed.of_offers([Offer(one, wrong)], costs, LAN)


# Many records.


def single(head: Head) -> costed.Single:
    """10 ms a record on the server."""
    linear = head.as_linear()
    assert linear is not None
    plan = coefficient_planner.choose(linear, head.contract)
    cost = Estimate(0.0, 0.01, LAN.transfer(plan.query_bytes, plan.answer_bytes), plan.query_bytes, plan.answer_bytes)
    return Costed("coefficient", plan, cost, offered=True)


def batch(head: Head, seconds: float) -> costed.Batch:
    plan = choose_batch(private_network(head), head.contract).plan
    cost = Estimate(
        0.0, seconds, LAN.transfer(plan.query_bytes, plan.answer_bytes), plan.query_bytes, plan.answer_bytes
    )
    return Costed("batch", plan, cost, offered=True)


def report(head: Head, seconds: float, records: int) -> table.Report:
    one, many = single(head), batch(head, seconds)
    return table.Report({}, Privacy.BOTH_PRIVATE, LAN, [one], [many], records=records)


def test_records_of_single_queries() -> None:
    way = single(linear_head(8, 3))
    per_call = way.plan.queries_per_call
    found = costed.cohort(way, per_call + 1, LAN)
    assert (found.queries, found.calls) == (per_call + 1, 2)
    assert found.cost.server == pytest.approx(0.01 * (per_call + 1))
    assert found.cost.bytes_up == (per_call + 1) * way.cost.bytes_up
    keys = LAN.transfer(way.plan.key_bytes, 0)
    assert found.cost.network == LAN.transfer(found.cost.bytes_up, found.cost.bytes_down, 2) + keys


def test_a_batch_pays_from_some_number_of_records_on() -> None:
    head = linear_head(8, 3)
    least = report(head, 2.0, 1).batch_from
    assert least is not None
    for records, winner in {least - 1: "coefficient", least: "batch"}.items():
        found = report(head, 2.0, records)
        assert found.cohorts[0].way.kind == winner
        assert found.allocation.shares[0].plan.kind == winner
        assert found.allocation.seconds == pytest.approx(found.cohorts[0].cost.total)
    way = batch(head, 2.0)
    assert costed.cohort(way, way.plan.records + 1, LAN).queries == 2
    assert report(head, 1.0 * way.plan.records, 1).batch_from is None
    assert costed.batch_from([single(head)], [], LAN) is None


def test_what_is_said_of_batches() -> None:
    found = report(linear_head(8, 3), 2.0, 5000)
    whole = found.batches[0].plan.records
    text = "\n".join(table.lines(found))
    assert f"by batch, {found.batches[0].plan.parameters}" in text
    assert f"a batch pays from {found.batch_from:,} records in it" in text
    assert "honestly" in text
    shown = table.as_json(found)["batch"]
    assert sum(share["records"] for share in shown["quickest"]) == 5000
    assert shown["candidates"][0]["queries"] in (-(-5000 // whole), 5000)
    slow = report(linear_head(8, 3), 1e4, 10)
    assert "even a full batch takes longer" in "\n".join(table.lines(slow))


def test_batch_plans_of_a_file(capsys: pytest.CaptureFixture[str], quadratic: Path) -> None:
    found = as_json(capsys, quadratic, "--batch", "3000")
    assert {one["kind"] for one in found["batch"]["candidates"]} == {"monomials", "slots", "batch"}
    assert found["chosen"]["kind"] != "batch"
    whole = [one for one in found["candidates"] if one["kind"] == "batch"]
    assert all(one["records_per_query"] == one["parameters"]["degree"] for one in whole)
    assert any(one["offered"] for one in whole)
    assert "batch" not in {one["kind"] for one in as_json(capsys, quadratic)["candidates"]}


def test_reasons_that_differ_in_figures_are_told_once() -> None:
    reasons = [Rejected("slots", "", f"N={2 << n}: misses {n} bits") for n in range(5)] + [
        Rejected("slots", "", "other")
    ]
    text = table.lines(table.Report({}, Privacy.BOTH_PRIVATE, LAN, [], rejected=reasons))
    assert sum("misses" in line for line in text) == 1
    assert any("5 times, with other figures" in line for line in text)
