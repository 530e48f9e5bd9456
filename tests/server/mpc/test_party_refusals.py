"""Halves that do not belong together, foreign bytes and wrong certificates at real processes: refused by name, and the next
good request works."""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from secure_infer.v1 import models_pb2, mpc_pb2, mpc_pb2_grpc
from secure_infer_server.mpc import process as party_process
from server.mpc.processes import FEATURES, Deployment, small_heads
from server.mpc.raw_client import Answer, Client, outcome
from shared import linear_head, unit_rows

GOOD = ("linear", "relu", "square-shared")
Halves = list[mpc_pb2.InferShareRequest]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("refusals"), small_heads(), ["square"], ["relu"]) as deployment:
        deployment.recovers(deployment.client(), GOOD)
        yield deployment
        assert "Traceback" not in deployment.logs()


@pytest.fixture
def client(running: Deployment) -> Iterator[Client]:
    """A client; after the test, good requests still work."""
    found = running.client()
    yield found
    assert all(running.works(found, model) for model in GOOD), running.logs()
    assert all(process.alive for process in running.processes)


def query(client: Client, model: str = "relu", rows: int = 1) -> Halves:
    return client.requests(model, unit_rows(rows, FEATURES, 5))


def reasons(answers: dict[int, Answer]) -> list[str]:
    return [answers[party].reason for party in sorted(answers)]


# Halves that do not belong together.


@pytest.mark.parametrize("model", ["linear", "relu", "square-shared"])
def test_different_rows(client: Client, model: str) -> None:
    one, other = query(client, model, 1), query(client, model, 2)
    other[1].request_id = one[0].request_id
    answers = client.send({0: one[0], 1: other[1]})
    assert reasons(answers) == ["HALVES_DIFFER"] * 2
    assert all("differ in rows" in a.message for a in answers.values())


def assert_none_answers(answers: dict[int, Answer]) -> None:
    """Whichever of them, and of its reasons, comes first; the client's own deadline may."""
    reasons = {"HALVES_DIFFER", "CORRELATIONS_EXHAUSTED", "PEER_FAILURE"}
    assert all(answer.reason in reasons or answer.status == "DEADLINE_EXCEEDED" for answer in answers.values())


def test_different_rows_of_which_neither_is_prepared(client: Client) -> None:
    one, other = query(client, "relu", 40), query(client, "relu", 100)
    other[1].request_id = one[0].request_id
    answers = client.send({0: one[0], 1: other[1]}, 1.5)
    assert_none_answers(answers)


def test_different_models(client: Client) -> None:
    one, other = query(client, "relu"), query(client, "square")
    other[1].request_id = one[0].request_id
    answers = client.send({0: one[0], 1: other[1]})
    assert reasons(answers) == ["HALVES_DIFFER"] * 2
    assert "model, model digest, program" in answers[0].message


def test_two_clients_with_one_id(running: Deployment, client: Client) -> None:
    halves, other = query(client), running.client("other")
    started = time.monotonic()
    call = other.parties[1].InferShare.future(halves[1], timeout=5)
    first = client.send({0: halves[0]})[0]
    assert [first.reason, outcome(call.result, started).reason] == ["HALVES_DIFFER"] * 2
    assert "differ in client" in first.message
    # Neither hears the other's name.
    assert not any(name in first.message for name in ("ward-7", "ward-8"))


def test_shares_of_two_queries_under_one_id_spoil_that_answer_alone(running: Deployment, client: Client) -> None:
    """Nobody can tell them from those of one query. What they join to is uniform: nothing of the model."""
    found = []
    for _ in range(4):
        one, other = query(client, "linear"), query(client, "linear")
        other[1].request_id = one[0].request_id
        found.append(client.joined("linear", one[0].request_id, client.send({0: one[0], 1: other[1]})))
    assert np.abs(np.concatenate(found)).max() > 1e3


@pytest.mark.parametrize("party", [0, 1])
def test_one_half_alone(client: Client, party: int) -> None:
    halves = query(client)
    answer = client.send({party: halves[party]}, 4.0)[party]
    assert (answer.status, answer.reason) == ("ABORTED", "PEER_FAILURE")
    # Its time has passed: the other half finds nothing, and the id is used.
    assert client.send({1 - party: halves[1 - party]}, 3.0)[1 - party].reason == "PEER_FAILURE"
    assert client.send({party: halves[party]})[party].reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("seconds", [0.05, 0.6])
def test_a_half_that_comes_late(running: Deployment, client: Client, party: int, seconds: float) -> None:
    for model in ("linear", "relu", "square-shared"):
        halves = query(client, model)
        started = time.monotonic()
        first = client.parties[party].InferShare.future(halves[party], timeout=10)
        time.sleep(seconds)
        answers = client.send({1 - party: halves[1 - party]}, 10)
        answers[party] = outcome(first.result, started)
        found = client.joined(model, halves[0].request_id, answers)
        assert running.right(client, model, unit_rows(1, FEATURES, 5), found)


def test_a_refused_half_ends_the_other_at_once(client: Client) -> None:
    halves = query(client)
    halves[1].share += b"\0"
    answers = client.send(dict(enumerate(halves)), 30)
    assert reasons(answers) == ["PEER_FAILURE", "MALFORMED_REQUEST"]
    assert answers[0].seconds < 10
    assert "refused" in answers[0].message


def test_an_id_twice(running: Deployment, client: Client) -> None:
    halves = query(client)
    found = client.joined("relu", halves[0].request_id, client.send(dict(enumerate(halves))))
    assert running.right(client, "relu", unit_rows(1, FEATURES, 5), found)
    for changed in (halves, query(client, "linear")):
        for half in changed:
            half.request_id = halves[0].request_id
        answers = client.send(dict(enumerate(changed)))
        assert reasons(answers) == ["MALFORMED_REQUEST"] * 2
        assert "used before" in answers[0].message


def test_an_id_twice_at_once(client: Client) -> None:
    halves = query(client)
    started = time.monotonic()
    calls = [client.parties[party].InferShare.future(halves[party], timeout=5) for party in (0, 1) for _ in range(4)]
    answers = [outcome(call.result, started) for call in calls]
    assert [a.status for a in answers].count("OK") == 2
    assert [a.reason for a in answers].count("MALFORMED_REQUEST") == 6


# Foreign bytes.

HOSTILE: dict[str, tuple[Callable[[mpc_pb2.InferShareRequest], object], str]] = {
    "no id": (lambda m: m.ClearField("request_id"), "MALFORMED_REQUEST"),
    "short id": (lambda m: setattr(m, "request_id", b"x" * 15), "MALFORMED_REQUEST"),
    "huge id": (lambda m: setattr(m, "request_id", b"x" * 20_000), "MALFORMED_REQUEST"),
    "no rows": (lambda m: setattr(m, "rows", 0), "MALFORMED_REQUEST"),
    "more rows": (lambda m: setattr(m, "rows", 2), "MALFORMED_REQUEST"),
    "huge rows": (lambda m: setattr(m, "rows", 2**32 - 1), "MALFORMED_REQUEST"),
    "rows that wrap": (lambda m: setattr(m, "rows", 2**29), "MALFORMED_REQUEST"),
    "no share": (lambda m: m.ClearField("share"), "MALFORMED_REQUEST"),
    "short share": (lambda m: setattr(m, "share", m.share[:-1]), "MALFORMED_REQUEST"),
    "long share": (lambda m: setattr(m, "share", m.share + bytes(8)), "MALFORMED_REQUEST"),
    "no model": (lambda m: m.ClearField("model"), "UNKNOWN_MODEL"),
    "odd model": (lambda m: setattr(m, "model", "../relu\n\0" + "x" * 5000), "UNKNOWN_MODEL"),
    "no digest": (lambda m: m.ClearField("model_digest"), "MODEL_CHANGED"),
    "other digest": (lambda m: setattr(m, "model_digest", secrets.token_bytes(32)), "MODEL_CHANGED"),
    "huge digest": (lambda m: setattr(m, "model_digest", bytes(20_000)), "MODEL_CHANGED"),
    "other program": (lambda m: setattr(m, "program_digest", secrets.token_bytes(32)), "PLAN_REFUSED"),
    "huge program": (lambda m: setattr(m, "program_digest", bytes(20_000)), "PLAN_REFUSED"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_fields(running: Deployment, client: Client, name: str) -> None:
    change, reason = HOSTILE[name]
    halves = query(client)
    marked = [b"\x0bSECRET\x0b" * FEATURES, b"\x0cHIDDEN\x0c" * FEATURES]
    for half, share in zip(halves, marked, strict=True):
        half.share = share
        change(half)
    for answer in client.send(dict(enumerate(halves))).values():
        assert answer.reason == reason
        assert len(answer.message) < 500
    for trace in ("SECRET", "HIDDEN", "\\u000b", b"SECRET".hex(), b"HIDDEN".hex()):
        assert trace not in running.logs()


def test_bytes_that_are_no_message(running: Deployment, client: Client) -> None:
    path = "/secure_infer.v1.PartyService/InferShare"
    for party in (0, 1):
        call = client._channels[party].unary_unary(path)
        for data in (b"\xff" * 100, secrets.token_bytes(5000), bytes(1 << 20)):
            with pytest.raises(grpc.RpcError) as caught:
                call(data, timeout=5)
            assert caught.value.code().name in ("INTERNAL", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


def test_more_requests_than_a_party_takes(client: Client) -> None:
    halves = [query(client)[1] for _ in range(party_process.CALLS)]
    started = time.monotonic()
    calls = [client.parties[1].InferShare.future(half, timeout=6) for half in halves]
    time.sleep(0.5)
    assert client.serving(1, 5.0)
    for call in calls[:-1]:
        call.cancel()
    answers = [outcome(call.result, started) for call in calls]
    assert {a.status for a in answers} <= {"CANCELLED", "RESOURCE_EXHAUSTED", "ABORTED"}


# Parties that do not fit together.


def test_parties_that_serve_different_things(tmp_path: Path) -> None:
    def prepare(folders: list[Path]) -> None:
        linear_head(FEATURES, 5, seed=9).save(folders[1] / "other.head")
        shutil.copy(folders[0] / "square-shared.share", folders[1] / "square-shared.share")

    heads = {**small_heads(), "other": linear_head(FEATURES, 5, seed=8)}
    options = (["--answers", "relu=label", "--answers", "linear=label"], [])
    with Deployment(tmp_path, heads, ["square"], options=options, prepare=prepare) as deployment:
        client = deployment.client()
        deployment.recovers(client, ["square"])
        for model in ("relu", "linear"):
            # A client that takes one party's word is refused by the other; one that tells each its own, by both.
            answers = client.send(dict(enumerate(query(client, model))), 1.0)
            assert reasons(answers)[1] == "PLAN_REFUSED"
            mixed = [query(client, model)[0], client.requests(model, unit_rows(1, FEATURES), party=1)[1]]
            mixed[1].request_id = mixed[0].request_id
            answers = client.send(dict(enumerate(mixed)), 1.0)
            assert_none_answers(answers)
        # Another file under the same name.
        answers = client.send(dict(enumerate(query(client, "other"))), 1.0)
        assert reasons(answers)[1] == "MODEL_CHANGED"
        mixed = [query(client, "other")[0], client.requests("other", unit_rows(1, FEATURES), party=1)[1]]
        mixed[1].request_id = mixed[0].request_id
        answers = client.send(dict(enumerate(mixed)))
        assert reasons(answers) == ["HALVES_DIFFER"] * 2
        assert "model digest" in answers[0].message
        # Party 0's half at party 1: never served, with the reason, in the ready line and to whoever asks.
        assert "party 0's half" in deployment.parties[1].ready["rejected"]["square-shared"]
        with pytest.raises(grpc.RpcError, match="party 0's half"):
            client.models[1].GetModel(models_pb2.GetModelRequest(model="square-shared"), timeout=5)
        answers = client.send(dict(enumerate(query(client, "square-shared"))), 1.0)
        assert reasons(answers)[1] == "UNKNOWN_MODEL"
        assert deployment.works(client, "square")


# Certificates.


@pytest.mark.parametrize("name", ["party0", "party1", "dealer"])
def test_parties_and_the_dealer_are_no_clients(running: Deployment, client: Client, name: str) -> None:
    halves, posing = query(client), running.client(name)
    answers = list(posing.send(dict(enumerate(halves))).values())
    started = time.monotonic()
    for stub in posing.models:
        for call, request in (
            (stub.ListModels, models_pb2.ListModelsRequest()),
            (stub.GetModel, models_pb2.GetModelRequest(model="relu")),
        ):
            answers.append(outcome(call.future(request, timeout=5).result, started))
    # A dealer's certificate is good for a server alone, and gRPC ends the handshake.
    refused = {("PERMISSION_DENIED", "PRIVACY_REFUSED")} | ({("UNAVAILABLE", "")} if name == "dealer" else set())
    assert {(a.status, a.reason) for a in answers} <= refused


def test_the_dealer_deals_to_parties_alone(running: Deployment, client: Client) -> None:
    def refused(name: str, party: int) -> Answer:
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in running.files(name)))
        with grpc.secure_channel(running.dealer.address, credentials) as channel:
            hello = iter([mpc_pb2.DealRequest(hello=mpc_pb2.DealHello(party=party))])
            stream = mpc_pb2_grpc.DealerServiceStub(channel).Deal(hello, timeout=5)
            return outcome(lambda: next(stream), time.monotonic())

    for name, party in (("client", 0), ("other", 1), ("party0", 1), ("party1", 0)):
        assert refused(name, party).reason == "PRIVACY_REFUSED"


def test_nobody_comes_without_a_certificate(running: Deployment, client: Client) -> None:
    halves = query(client)
    authority = running.certificates["ca.pem"].read_bytes()
    for address in (*(party.address for party in running.parties), running.dealer.address):
        for channel in (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(authority)),
            grpc.insecure_channel(address),
        ):
            with channel:
                call = mpc_pb2_grpc.PartyServiceStub(channel).InferShare.future(halves[0], timeout=5)
                assert outcome(call.result, time.monotonic()).status == "UNAVAILABLE"


@pytest.mark.parametrize("name", ["client", "dealer", "party0", None])
def test_the_lane_port_is_for_the_peer_alone(running: Deployment, client: Client, name: str | None) -> None:
    context = ssl.create_default_context(cafile=running.certificates["ca.pem"])
    context.check_hostname = False
    if name is not None:
        _, key, chain = running.files(name)
        context.load_cert_chain(chain, key)
    host, _, port = str(running.parties[0].ready["peer"]).rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain) as lane:
            lane.sendall(bytes(100))
            assert lane.recv(100) == b""
    except OSError:
        pass  # a reset, or an alert: closed before a byte was said
