"""The SDK against two parties: answers, what is pinned, what is refused, what a failure says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest

from client.parties import Parties
from secure_infer.errors import (
    AnswerRefused,
    CallFailed,
    CorrelationsExhausted,
    HalvesDiffer,
    ModelChanged,
    PeerFailure,
    PlanRefused,
    PrivacyRefused,
    ServerUnavailable,
    SettingsError,
)
from secure_infer.heads import Head, Linear, ReLU
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.program import Answers, Comparisons, Program, Weights
from secure_infer.mpc.ring import decode
from secure_infer_client import AsyncClient, CallStats, Client, retries
from secure_infer_client.costs import accuracy
from secure_infer_client.mpc.session import FREE_RETRIES, rows_a_request
from secure_infer_client.text import embedder
from shared import hidden_head, linear_head, unit_rows

HEADS = {
    "small": linear_head(8, 3),
    "binary": linear_head(30, 1, bound=6.0, norm=None),
    "square": hidden_head((8, 6, 3)),
    "relu": hidden_head((8, 6, 3), ReLU()),
    "split": hidden_head((20, 8, 3), ReLU(), public_layers=2),
}
MULTILABEL = Head(linear_head(8, 3).layers, labels=["a", "b", "c"], input_bound=1.0, input_norm=1.0, task="multilabel")


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    with Parties(HEADS) as running:
        yield running


@pytest.fixture(scope="module")
def labels_alone() -> Iterator[Parties]:
    with Parties({**HEADS, "many": MULTILABEL}, answers=Answers.LABEL) as running:
        yield running


@pytest.fixture
def own() -> Iterator[Parties]:
    """Parties that a test may spoil; they wait a second for each other."""
    with Parties({"m": HEADS["small"], "square": HEADS["square"]}, patience=1.0) as running:
        yield running


def client(parties: Parties, model: str = "m", **arguments: object) -> Client:
    return Client(parties.addresses, model=model, scheme="mpc", **arguments)  # type: ignore[arg-type]


def rows(head: Head, count: int) -> np.ndarray:
    return unit_rows(count, head.features) * (1.0 if head.contract.norm else head.contract.bound)


# Answers.


@pytest.mark.parametrize("weights", Weights)
@pytest.mark.parametrize("name", HEADS)
def test_logits_within_the_bound(name: str, weights: Weights) -> None:
    head = HEADS[name]
    with Parties({name: head}, weights) as running, client(running, name) as made:
        for count in (1, 5):
            x = rows(head, count)
            found = made.predict(x)
            assert found.shape == (count, head.outputs)
            assert found.dtype == np.float64
            assert np.abs(found - head.evaluate(x)).max() <= made.plan.error_bound
        assert made.decide(x) == made.spec.decide(head.evaluate(x))
        assert made.last_call.stats.plan == f"mpc, {weights} weights, {made.plan.fraction} fraction bits"


def test_many_rows_keep_their_order_and_report_progress(parties: Parties) -> None:
    head, reached = HEADS["small"], []
    x = rows(head, 600)
    with client(parties, "small") as made:
        found = made.predict(x, progress=reached.append)
        assert np.abs(found - head.evaluate(x)).max() <= made.plan.error_bound
        assert reached == [256 / 600, 512 / 600, 1.0]
        assert made.last_call.stats.rounds == 3


def test_wide_records_take_smaller_requests() -> None:
    with Parties({"wide": linear_head(6000, 2)}) as running, client(running, "wide") as made:
        most = rows_a_request(made.plan)
        assert 1 < most * made.plan.share_bytes(1) <= 2 << 20
        x = rows(linear_head(6000, 2), most + 1)
        assert np.abs(made.predict(x) - linear_head(6000, 2).evaluate(x)).max() <= made.plan.error_bound
        assert made.last_call.stats.rounds == 2


def test_what_each_party_gets(parties: Parties) -> None:
    """One fresh id, halves of which neither holds the rows and whose sum does; nothing else differs."""
    x = rows(HEADS["small"], 2)
    with client(parties, "small") as made:
        made.predict(x)
        made.predict(x)
        fraction = made.plan.fraction
    for age in (-1, -2):
        one, other = (party.seen[age] for party in parties.parties)
        assert len(one.request_id) == 16
        halves = [np.frombuffer(request.share, np.uint64).reshape(2, 8) for request in (one, other)]
        assert np.abs(decode(halves[0] + halves[1], fraction) - x).max() <= 2.0**-fraction
        one.share = other.share
        assert one == other
    first, second = parties.parties[0].seen[-2:]
    assert first.request_id != second.request_id
    assert first.share != second.share


def test_public_layers_stay_here(parties: Parties) -> None:
    with client(parties, "split") as made:
        made.predict(rows(HEADS["split"], 1))
    assert len(parties.parties[0].seen[-1].share) == 8 * 8


def test_stats_of_a_call() -> None:
    with Parties({"relu": HEADS["relu"]}, Weights.SHARED) as running, client(running, "relu") as made:
        program = made.plan
        made.predict(rows(HEADS["relu"], 3))
        first = made.last_call.stats
        made.predict(rows(HEADS["relu"], 1))
        stats = made.last_call.stats
    assert (stats.link_rounds, stats.link_bytes) == (program.rounds, program.link_bytes(1))
    assert stats.correlation_bytes == 64 + program.correlation_bytes(1)
    assert (stats.rounds, stats.records, stats.retries, stats.key_bytes) == (1, 1, 0, 0)
    assert (stats.security_bits, stats.smudging_bits, stats.error_bound) == (128, 0, program.error_bound)
    assert stats.server_ms == pytest.approx(0.9)
    assert (stats.wait_ms, stats.server_evaluate_ms) == pytest.approx((0.1, 0.5))
    assert stats.bytes_up > 2 * program.share_bytes(1)
    assert stats.bytes_down > 2 * program.answer_bytes(1)
    parts = stats.embed_ms + stats.encrypt_ms + stats.network_ms + stats.server_ms + stats.decrypt_ms
    assert 0 < parts <= stats.total_ms
    together = first + stats
    assert isinstance(together, CallStats)
    assert together.link_bytes == program.link_bytes(4) + program.link_bytes(1)
    assert (together.link_rounds, together.wait_ms, together.plan) == (
        2 * program.rounds,
        pytest.approx(0.2),
        stats.plan,
    )


# Labels alone.


@pytest.mark.parametrize("name", ["small", "binary", "relu", "many"])
def test_labels_alone(labels_alone: Parties, name: str) -> None:
    head = MULTILABEL if name == "many" else HEADS[name]
    x = rows(head, 40)
    with client(labels_alone, name) as made:
        assert made.label_only
        exact = head.evaluate(x)
        sure = made.spec.margins(exact) > 2 * made.plan.error_bound
        wanted = made.spec.decide(exact)
        assert sure.sum() > 30
        found = made.decide(x)
        assert [f for f, s in zip(found, sure, strict=True) if s] == [w for w, s in zip(wanted, sure, strict=True) if s]
        assert made.last_call.stats.plan.endswith("labels alone")
        with pytest.raises(SettingsError, match="use decide or classify"):
            made.predict(x)


def test_accuracy_in_words() -> None:
    """Logits have an error bound; labels are right or wrong, and CrypTen's ReLU can hide a wrong logit."""
    relu = HEADS["relu"]
    logits, theirs = compile_head(relu).program, compile_head(relu, comparisons=Comparisons.CRYPTEN).program
    labels = compile_head(relu, answers=Answers.LABEL).program
    assert accuracy(logits, 8e-4) == "logit error at most 0.0008"
    assert accuracy(theirs, 8e-4).startswith("logit error at most 0.0008, more unnoticed with probability")
    assert accuracy(labels, 8e-4).startswith("a label is wrong unnoticed with probability")


def toy(texts: list[str]) -> np.ndarray:
    return np.array([[len(t.split()), len(t) / 10] for t in texts], np.float64)


@pytest.mark.parametrize("answers", Answers)
def test_classify(answers: Answers) -> None:
    base = linear_head(2, 2, bound=100.0, norm=None)
    head = Head(base.layers, labels=base.labels, input_bound=100.0, embedder="toy/1")
    texts = ["one two three", "seen on 12/03/2021 by phone 555-123-4567"]
    with Parties({"toy": head}, answers=answers) as running, ExitStack() as stack:
        made = stack.enter_context(client(running, "toy", embedder=embedder("toy/1", toy)))
        found = made.classify(texts)
        assert [f.label for f in found] == made.spec.decide(head.evaluate(made.embed(texts)))
        assert [len(f.removed) > 0 for f in found] == [False, True]
        if answers is Answers.LOGITS:
            assert all(f.probability > 0.5 and f.logits.shape == (2,) for f in found)
            assert len(made.explain("one two three").attributions) == 3
            return
        for one in found:
            assert np.isnan([one.probability, one.margin]).all()
            assert one.logits.shape == (0,)
            assert one.certain is None
            assert not one.abstain
            assert one.error_bound == made.plan.error_bound
        with pytest.raises(SettingsError, match="labels alone"):
            made.explain("one two three")
        apart = stack.enter_context(client(running, "toy", embedder=embedder("toy/1", toy), long_text="apart"))
        with pytest.raises(SettingsError, match="surest window"):
            apart.classify(texts)


def test_a_label_without_a_winner_is_asked_again(labels_alone: Parties) -> None:
    party, spoilt = labels_alone.parties[1], []

    def once(share: np.ndarray) -> np.ndarray:
        spoilt.append(len(share))
        return np.zeros_like(share) if len(spoilt) == 1 else share

    x = rows(HEADS["small"], 3)
    party.answered = once
    try:
        with client(labels_alone, "small") as made:
            assert made.decide(x) == made.spec.decide(HEADS["small"].evaluate(x))
            assert made.last_call.stats.retries == 1
            party.answered = np.zeros_like
            with pytest.raises(AnswerRefused, match="faulty or hostile"):
                made.decide(x)
    finally:
        party.answered = lambda share: share
    assert spoilt == [3, 3]


# Answers that cannot be right.


def test_one_truncation_failure_is_mended_by_asking_again(own: Parties) -> None:
    spoilt = []

    def once(share: np.ndarray) -> np.ndarray:
        spoilt.append(len(share))
        return share + np.uint64(1 << 60) * (np.arange(len(share)) == 1)[:, None].astype(np.uint64) * np.uint64(
            len(spoilt) == 1
        )

    own.parties[0].answered = once
    x = rows(HEADS["small"], 4)
    with client(own) as made:
        assert np.abs(made.predict(x) - HEADS["small"].evaluate(x)).max() <= made.plan.error_bound
        assert made.last_call.stats.retries == 1
        assert made.last_call.stats.rounds == 2
    assert spoilt == [4, 4]  # all of them again: nobody learns which failed
    ids = {request.request_id for request in own.parties[0].seen}
    assert len(ids) == 2
    assert own.parties[0].seen[0].share != own.parties[0].seen[1].share


def test_a_second_failure_is_refused_and_two_refusals_stop_the_client(own: Parties) -> None:
    own.parties[0].answered = lambda share: share + np.uint64(1 << 60)
    x = rows(HEADS["small"], 2)
    with client(own) as made:
        with pytest.raises(AnswerRefused, match="2 of 2 records failed their checks twice"):
            made.predict(x)
        with pytest.raises(AnswerRefused, match="this client stops"):
            made.predict(x)
        asked = len(own.parties[0].seen)
        with pytest.raises(AnswerRefused, match="do not retry"):
            made.predict(x)
        assert len(own.parties[0].seen) == asked == 4


def test_failures_more_frequent_than_truncation_are_refused(own: Parties) -> None:
    """A party that spoils every other answer reads a bit from each retry; it gets few of them."""
    spoilt = []

    def every_other(share: np.ndarray) -> np.ndarray:
        spoilt.append(share)
        return share + np.uint64((len(spoilt) % 2) << 60)

    own.parties[1].answered = every_other
    x = rows(HEADS["small"], 1)
    with client(own) as made:
        for _ in range(FREE_RETRIES):
            made.predict(x)
        with pytest.raises(AnswerRefused, match="more often than truncation does"):
            made.predict(x)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("request_id", b"0" * 16, "bound to another"),
        ("model_digest", b"0" * 32, "bound to another"),
        ("program_digest", b"0" * 32, "bound to another"),
        ("share", b"0" * 23, "expected 24 bytes, got 23"),
    ],
)
def test_answers_that_belong_elsewhere(own: Parties, name: str, value: bytes, message: str) -> None:
    own.parties[1].responded = lambda response: setattr(response, name, value)
    with client(own) as made, pytest.raises(AnswerRefused, match=message) as refused:
        made.predict(rows(HEADS["small"], 1))
    assert own.addresses[1] in refused.value.message
    assert len(own.parties[1].seen) == 1


# What the parties say of the model.


def test_parties_that_serve_different_models(own: Parties) -> None:
    def other(response: object) -> None:
        response.model.digest = b"1" * 32  # type: ignore[attr-defined]

    own.parties[1].told = other
    with client(own) as made, pytest.raises(HalvesDiffer, match="serve the same artifact") as refused:
        made.spec  # noqa: B018
    assert all(address in refused.value.message for address in own.addresses)


def test_halves_of_two_runs_of_share_model() -> None:
    def other(response: object) -> None:
        response.model.digest = b"1" * 32  # type: ignore[attr-defined]

    with Parties({"m": HEADS["small"]}, Weights.SHARED) as running, client(running) as made:
        running.parties[1].told = other
        with pytest.raises(HalvesDiffer, match="give both parties the files of one run"):
            made.spec  # noqa: B018


def test_what_differs_is_named(own: Parties) -> None:
    from dataclasses import replace

    own.parties[1].told = lambda response: spoil(response, lambda p: replace(p, comparisons=Comparisons.CRYPTEN))
    with (
        client(own) as made,
        pytest.raises(HalvesDiffer, match=r"\(in the program's comparisons\).*by tables.*by crypten"),
    ):
        made.spec  # noqa: B018


def test_another_service_is_no_party(parties: Parties) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with Client((parties.addresses[0], address), model="small", scheme="mpc") as made:
        with pytest.raises(CallFailed, match=f"^{address} is no party"):
            made.spec  # noqa: B018
    with Client(address, model="small") as made, pytest.raises(CallFailed, match=f"^{address} is no server"):
        made.spec  # noqa: B018
    server.stop(None).wait()


def spoil(response: object, change: object) -> None:
    program = response.program  # type: ignore[attr-defined]
    sound = Program.from_json(program.description)
    changed = change(sound)  # type: ignore[operator]
    program.description, program.digest = changed.as_json(), bytes.fromhex(changed.digest)


def test_programs_that_do_not_fit(own: Parties) -> None:
    from dataclasses import replace

    cases = {
        "not that of its description": lambda response: setattr(response.program, "digest", b"0" * 32),
        "expected JSON": lambda response: setattr(response.program, "description", b"[]"),
        "without a program": lambda response: response.ClearField("program"),
        "described 'other'": lambda response: setattr(response.model, "name", "other"),
        "do not come from its steps": lambda response: spoil(response, lambda p: replace(p, answers=Answers.LABEL)),
        "expected 8 features": lambda response: spoil(
            response, lambda p: replace(p, steps=(replace(p.steps[0], inputs=9), *p.steps[1:]))
        ),
    }
    for message, told in cases.items():
        for party in own.parties:
            party.told = told
        with client(own) as made, pytest.raises(PlanRefused, match=message):
            made.predict(rows(HEADS["small"], 1))
    assert not own.parties[0].seen


def test_a_changed_model_is_refused_unless_accepted(own: Parties) -> None:
    x, second = rows(HEADS["small"], 1), linear_head(8, 3, seed=2)
    asked: list[str] = []
    with client(own) as strict, client(own, accept_model=lambda spec: not asked.append(spec.digest)) as open_minded:
        for made in (strict, open_minded):
            made.predict(x)
        with Parties({"m": second}) as changed:
            own.pairs = changed.pairs
            with pytest.raises(ModelChanged, match="pinned"):
                strict.predict(x)
            assert np.abs(open_minded.predict(x) - second.evaluate(x)).max() <= open_minded.plan.error_bound
            assert asked == [second.digest]
            with pytest.raises(ModelChanged):
                strict.predict(x)


def test_the_program_is_pinned_too(own: Parties) -> None:
    """The same model with other weights or answers is another promise."""
    x = rows(HEADS["small"], 1)
    with client(own) as made, Parties({"m": HEADS["small"]}, Weights.SHARED) as shared:
        made.predict(x)
        own.pairs = shared.pairs
        for party in own.parties:
            party.refuse = fail(PlanRefused("this program is no longer served"))  # type: ignore[assignment]
        with pytest.raises(ModelChanged, match="program"):
            made.predict(x)


# One party fails.


def fail(error: Exception) -> object:
    def refuse(_: object) -> None:
        raise error

    return refuse


def test_a_lost_party_is_named_at_once(own: Parties) -> None:
    with client(own, timeout=10) as made:
        made.predict(rows(HEADS["small"], 1))
        own.servers[1].stop(None).wait()
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no server answers") as refused:
            made.predict(rows(HEADS["small"], 1))
        assert own.addresses[1] in refused.value.message
        assert time.monotonic() - started < 5


def test_the_cause_is_told_and_not_its_consequence(own: Parties) -> None:
    """Party 0 says that its peer is lost; party 1, what is wrong with it."""
    own.parties[0].refuse = fail(PeerFailure("peer: lost"))  # type: ignore[assignment]

    def late(_: object) -> None:
        time.sleep(0.1)
        raise CorrelationsExhausted("the store is dry")

    own.parties[1].refuse = late
    with client(own) as made, pytest.raises(CorrelationsExhausted, match="the store is dry") as refused:
        made.predict(rows(HEADS["small"], 1))
    assert own.addresses[1] in refused.value.message


@pytest.mark.parametrize("error", [PeerFailure("lost"), HalvesDiffer("shapes"), CorrelationsExhausted("dry")])
def test_catalogued_errors_arrive_as_themselves(own: Parties, error: Exception) -> None:
    own.parties[0].refuse = fail(error)  # type: ignore[assignment]
    with client(own) as made, pytest.raises(type(error), match=f"{own.addresses[0]}.*{error}"):
        made.predict(rows(HEADS["small"], 1))


def test_a_half_is_never_sent_twice(own: Parties) -> None:
    """A party that is not ready is asked again, with halves of their own under an id of its own."""
    own.parties[0].refuse = fail(ServerUnavailable("later"))  # type: ignore[assignment]
    with client(own) as made, pytest.raises(ServerUnavailable):
        made.predict(rows(HEADS["small"], 1))
    seen = own.parties[0].seen
    assert len(seen) == retries.UNREACHABLE
    assert len({request.share for request in seen}) == len({request.request_id for request in seen}) == len(seen)
    assert len(own.parties[1].seen) <= len(seen)


def test_asking_for_the_model_is_repeated(own: Parties) -> None:
    asked = []

    def starting(response: object) -> None:
        asked.append(response)
        if len(asked) == 1:
            raise ServerUnavailable("starting")

    own.parties[0].told = starting
    with client(own) as made:
        assert made.spec.name == "m"
    assert len(asked) == 2


def test_one_half_alone_is_a_peer_failure(own: Parties) -> None:
    own.parties[1].refuse = lambda _: time.sleep(1.5)
    with client(own) as made, pytest.raises(PeerFailure, match="no message within"):
        made.predict(rows(HEADS["small"], 1))


class Answering(grpc.GenericRpcHandler):
    """Answers every call so many times."""

    def __init__(self, times: int) -> None:
        self._times = times

    def service(self, details: object) -> grpc.RpcMethodHandler:
        return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([b""] * self._times))


@pytest.mark.parametrize(("times", "message"), [(0, "got none"), (2, "got several"), (1000, "got several")])
def test_anything_but_one_answer_is_refused(parties: Parties, times: int, message: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Answering(times),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with Client((parties.addresses[0], address), model="small", scheme="mpc") as made:
        with pytest.raises(AnswerRefused, match=message):
            made.spec  # noqa: B018
    server.stop(None).wait()


# Settings.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "127.0.0.1:1"}, "expected two parties.*got 1"),
        ({"target": ("127.0.0.1:1",) * 3}, "got 3"),
        ({"target": ("127.0.0.1:1", "127.0.0.1:1")}, "twice"),
        ({"target": ("127.0.0.1:1", "nowhere")}, "HOST:PORT"),
        ({"target": ("127.0.0.1:1", 2)}, "HOST:PORT"),
        ({"target": 5}, "got int"),
        ({"scheme": "ckks"}, "expected one server.*got 2; for two parties add --scheme mpc"),
        ({"scheme": "tee"}, "one of ckks, mpc"),
        ({"link": "fast"}, "link"),
        ({"privacy": "none"}, "expected one of"),
        ({"private_key": Path("/nonexistent")}, "go together"),
    ],
)
def test_settings_are_checked_at_once(arguments: dict, message: str) -> None:
    given = {"target": ("127.0.0.1:1", "127.0.0.1:2"), "model": "m", "scheme": "mpc"} | arguments
    with pytest.raises(SettingsError, match=message):
        Client(**given)


def test_what_two_parties_do_not_have(parties: Parties) -> None:
    with pytest.raises(PrivacyRefused, match="both-private"):
        client(parties, "small", privacy="input-private")
    with client(parties, "small", privacy="both-private", link="wan") as made:
        with pytest.raises(SettingsError, match="evaluate_plaintext"):
            made.evaluate_plaintext(rows(HEADS["small"], 1))
        assert made.batch_plans == []
        assert made.offered.offers == ()
        assert "one program" in made.offered.reason
        assert not made.label_only


def test_the_async_client_takes_two_targets(parties: Parties) -> None:
    import asyncio

    x = rows(HEADS["small"], 2)

    async def use() -> tuple[np.ndarray, list[str], bool]:
        async with AsyncClient(parties.addresses, model="small", scheme="mpc") as made:
            return await made.predict(x), await made.decide(x), await made.label_only()

    logits, labels, label_only = asyncio.run(use())
    exact = HEADS["small"].evaluate(x)
    assert np.abs(logits - exact).max() < 1e-3
    assert labels == [HEADS["small"].labels[i] for i in exact.argmax(axis=1)]
    assert not label_only


def test_a_linear_head_of_large_numbers() -> None:
    head = Head([Linear(np.full((2, 4), 1000.0), np.zeros(2))], labels=["a", "b"], input_bound=100.0)
    with Parties({"m": head}) as running, client(running) as made:
        x = np.full((1, 4), 100.0)
        assert np.abs(made.predict(x) - head.evaluate(x)).max() <= made.plan.error_bound
