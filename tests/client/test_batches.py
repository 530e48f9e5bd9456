"""Many rows through a real server: batches where they are quicker, and what happens when the other side misbehaves."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.ckks.allocation import cheapest_for
from secure_infer.ckks.link import Estimate, Link
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import AnswerRefused, CallFailed, InternalFault, PlanRefused, ResourceExhausted
from secure_infer.heads import Head
from secure_infer.v1 import inference_pb2
from secure_infer_client import AsyncClient, Client, description
from secure_infer_client.choice import Batch, Query
from secure_infer_client.local_server import LocalServer
from shared import hidden_head, linear_head, unit_rows

LINEAR, HIDDEN = linear_head(8, 3), hidden_head((6, 4, 2))
MANY = 1500


@pytest.fixture(scope="module")
def batch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    directory = tmp_path_factory.mktemp("models")
    LINEAR.save(directory / "linear.head")
    HIDDEN.save(directory / "hidden.head")
    with LocalServer(directory) as running:
        yield running


@pytest.fixture
def client(batch_server: LocalServer) -> Iterator[Client]:
    with Client(batch_server.address, model="linear") as made:
        yield made


def error(found: np.ndarray, head: Head, rows: np.ndarray) -> float:
    return float(np.abs(found - head.evaluate(rows)).max())


@pytest.mark.parametrize(("name", "head"), [("linear", LINEAR), ("hidden", HIDDEN)])
def test_many_rows_go_as_batches(batch_server: LocalServer, name: str, head: Head) -> None:
    with Client(batch_server.address, model=name, timeout=60) as client:
        largest = max(batch.plan.records for batch in usable_batches(client))
        for count in (MANY, largest, largest + 1):
            rows = unit_rows(count, head.features)
            found = client.predict(rows)
            stats = client.last_call.stats
            assert found.shape == (count, head.outputs)
            assert "batch N=" in stats.plan
            assert error(found, head, rows) <= stats.error_bound
            assert (stats.records, stats.security_bits) == (count, 128)
            assert stats.smudging_bits >= 18
        assert stats.rounds >= 2  # the one row too many travels apart


def usable_batches(client: Client) -> list[Batch]:
    client.spec  # noqa: B018 (asks for the offers)
    return client._session._batches


def test_few_rows_go_one_by_one(client: Client) -> None:
    client.predict(unit_rows(2, 8))
    assert client.last_call.stats.plan.startswith("coefficient")
    assert client.last_call.stats.rounds == 1


def test_bytes_of_a_batch_are_counted(client: Client) -> None:
    client.predict(unit_rows(MANY, 8))
    first = client.last_call.stats
    client.predict(unit_rows(MANY, 8))
    second = client.last_call.stats
    (plan,) = [b.plan for b in usable_batches(client) if f"batch {b.plan.parameters}," in second.plan]
    assert (first.key_bytes, second.key_bytes, second.rounds) == (plan.key_bytes, 0, 1)
    assert plan.query_bytes < second.bytes_up < plan.query_bytes + 1000
    assert plan.answer_bytes < second.bytes_down < plan.answer_bytes + 2000
    assert second.blinds_inline == plan.products
    assert second.server_ms > 0


def test_stats_add_up_over_plans(client: Client) -> None:
    client.predict(unit_rows(2, 8))
    single = client.last_call.stats
    client.predict(unit_rows(MANY, 8))
    batch = client.last_call.stats
    both = single + batch + single
    assert both.plan == f"{single.plan} + {batch.plan}"
    assert both.records == MANY + 4
    assert both.error_bound == max(single.error_bound, batch.error_bound)
    assert both.smudging_bits == min(single.smudging_bits, batch.smudging_bits)


def test_progress_grows_to_one(client: Client) -> None:
    seen: list[float] = []
    largest = max(batch.plan.records for batch in usable_batches(client))
    client.predict(unit_rows(2 * largest + 3, 8), progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 6
    assert 0 < seen[0] < 0.5
    assert seen[-1] == pytest.approx(1.0)
    seen.clear()
    client.predict(unit_rows(1, 8), progress=seen.append)
    assert seen == [1.0]


def test_an_exception_in_progress_is_the_callers(client: Client) -> None:
    def stop(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.predict(unit_rows(MANY, 8), progress=stop)
    rows = unit_rows(MANY, 8)
    assert error(client.predict(rows), LINEAR, rows) <= client.last_call.stats.error_bound


def test_an_error_while_encrypting_is_the_callers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.predict(unit_rows(MANY, 8))
    for key in client._session._secrets.by_ring.values():
        monkeypatch.setattr(key, "encrypt_batch", lambda polynomial: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.predict(unit_rows(MANY, 8))


def test_the_async_client_takes_batches(batch_server: LocalServer) -> None:
    rows, seen = unit_rows(MANY, 8), []

    async def use() -> np.ndarray:
        async with AsyncClient(batch_server.address, model="linear") as client:
            found = await client.predict(rows, progress=seen.append)
            assert "batch" in client.last_call.stats.plan
            return found

    assert error(asyncio.run(use()), LINEAR, rows) < 1e-3
    assert seen[-1] == pytest.approx(1.0)


def test_one_secret_key_a_ring(client: Client) -> None:
    for count in (1, MANY, 2, 3 * MANY):
        client.predict(unit_rows(count, 8))
    secrets = client._session._secrets.by_ring
    assert len(secrets) >= 2
    assert all(parameters == key.parameters for parameters, key in secrets.items())
    polynomials = [key.polynomial().tobytes() for key in secrets.values()]
    assert len(set(polynomials)) == len(polynomials)


def test_a_forgotten_key_is_uploaded_and_the_batch_sent_again(tmp_path: Path) -> None:
    LINEAR.save(tmp_path / "m.head")
    rows = unit_rows(MANY, 8)
    with LocalServer(tmp_path) as server, Client(server.address, model="m") as client:
        sent = recorded(client)
        client.predict(rows)
        server.stop()
        with LocalServer(tmp_path, "--listen", server.address):
            asyncio.run(asyncio.sleep(1.2))
            assert error(client.predict(rows), LINEAR, rows) <= client.last_call.stats.error_bound
            assert client.last_call.stats.key_bytes > 0
    seeds = [ciphertext[-SEED_BYTES:] for ciphertext in sent]
    assert len(seeds) >= 16
    assert len(set(seeds)) == len(seeds)


def test_a_changed_model_answers_all_rows_or_none(tmp_path: Path) -> None:
    first, second, rows = linear_head(8, 3, seed=1), linear_head(8, 3, seed=2), unit_rows(MANY, 8)
    first.save(tmp_path / "m.head")
    with LocalServer(tmp_path) as server:
        client = Client(server.address, model="m", accept_model=lambda _: True)
        client.predict(rows)
    second.save(tmp_path / "m.head")
    with LocalServer(tmp_path, "--listen", server.address), client:
        asyncio.run(asyncio.sleep(1.2))
        assert error(client.predict(rows), second, rows) <= client.last_call.stats.error_bound


# A server that misbehaves.


class Stub:
    """The inference stub with another InferBatch."""

    def __init__(self, stub: Any, infer_batch: Callable[..., Any]) -> None:
        self.Infer, self.InferBatch = stub.Infer, infer_batch


class Changed:
    """A call whose responses pass through `change`."""

    def __init__(self, call: Any, change: Callable[[list[Any]], list[Any]]) -> None:
        self._call, self._change = call, change

    def __iter__(self) -> Iterator[Any]:
        return iter(self._change(list(self._call)))

    def cancel(self) -> None:
        self._call.cancel()


def recorded(client: Client) -> list[bytes]:
    """Every ciphertext of every batch that `client` sends from now on."""
    sent: list[bytes] = []
    stub = client._session._inference

    def tee(requests: Iterator[Any], timeout: float) -> Any:
        def passed() -> Iterator[Any]:
            for request in requests:
                sent.extend(request.ciphertexts)
                yield request

        return stub.InferBatch(passed(), timeout=timeout)

    client._session._inference = Stub(stub, tee)
    return sent


def tampered(client: Client, change: Callable[[list[Any]], list[Any]]) -> None:
    stub = client._session._inference
    client._session._inference = Stub(stub, lambda r, timeout: Changed(stub.InferBatch(r, timeout=timeout), change))


def each(change: Callable[[Any], None], kind: str) -> Callable[[list[Any]], list[Any]]:
    def changed(responses: list[Any]) -> list[Any]:
        for response in responses:
            if response.WhichOneof("event") == kind:
                change(response)
        return responses

    return changed


def overwrite(response: Any) -> None:
    response.answer.product = os.urandom(len(response.answer.product))


def of_kind(responses: list[Any], kind: str) -> list[Any]:
    return [response for response in responses if response.WhichOneof("event") == kind]


REFUSED: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "another request": (each(lambda r: setattr(r, "request_id", b"x"), "answer"), "bound to another"),
    "another model": (each(lambda r: setattr(r, "model_digest", b"x"), "times"), "bound to another"),
    "noise": (each(overwrite, "answer"), "range|modulus"),
    "a byte more": (each(lambda r: setattr(r.answer, "product", r.answer.product + b"x"), "answer"), "bytes, got"),
    "an empty answer": (each(lambda r: setattr(r.answer, "product", b""), "answer"), "bytes, got 0"),
    "nothing": (lambda r: [], "ended after 0 of 3"),
    "no times": (lambda r: r[:-1], "ended after 3 of 3"),
    "an answer less": (lambda r: [*of_kind(r, "answer")[:2], r[-1]], "does not belong"),
    "an answer more": (lambda r: [*of_kind(r, "answer"), *of_kind(r, "answer")], "does not belong"),
    "more after the end": (lambda r: [*r, r[-1]], "went on"),
    "an empty message": (
        lambda r: [inference_pb2.InferBatchResponse(request_id=r[0].request_id, model_digest=r[0].model_digest)],
        "does not belong",
    ),
    "a key forgotten too late": (
        each(lambda r: r.unknown_key.SetInParent(), "times"),
        "does not belong",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_batch_destroys_every_key(client: Client, name: str) -> None:
    change, message = REFUSED[name]
    rows = unit_rows(MANY, 8)
    client.predict(rows[:1])
    client.predict(rows)
    keys, stub = list(client._session._secrets.by_ring.values()), client._session._inference
    tampered(client, change)
    with pytest.raises(AnswerRefused, match=message) as refused:
        client.predict(rows)
    assert "nothing was retried" in refused.value.message
    assert not client._session._secrets.by_ring
    assert len(keys) == 2
    for key in keys:
        with pytest.raises(InternalFault, match="destroyed"):
            key.encrypt_batch(np.zeros(key.parameters.degree, np.int64))
    client._session._inference = stub
    assert error(client.predict(rows), LINEAR, rows) <= client.last_call.stats.error_bound  # under a new key
    tampered(client, change)
    with pytest.raises(AnswerRefused, match="this client stops"):
        client.predict(rows)
    client._session._inference = stub
    with pytest.raises(AnswerRefused, match="stopped"):
        client.predict(rows)


@pytest.mark.parametrize("done", [math.nan, math.inf, -1.0, 1e300])
def test_progress_that_cannot_be_is_not_passed_on(client: Client, done: float) -> None:
    seen: list[float] = []
    tampered(client, each(lambda r: setattr(r.progress, "done", done), "progress"))
    client.predict(unit_rows(MANY, 8), progress=seen.append)
    assert seen == sorted(seen)
    assert all(0 <= value <= 1.0 + 1e-9 for value in seen)


def test_a_key_that_is_never_held_is_a_clear_error(client: Client) -> None:
    def forgotten(responses: list[Any]) -> list[Any]:
        first = responses[0]
        first.unknown_key.SetInParent()
        return [first]

    tampered(client, forgotten)
    with pytest.raises(CallFailed, match="forgot the public key"):
        client.predict(unit_rows(MANY, 8))


def test_a_busy_server_is_asked_again(client: Client) -> None:
    stub, busy = client._session._inference, [ResourceExhausted("busy", again="later") for _ in range(2)]

    def now_and_then(requests: Any, timeout: float) -> Any:
        if busy:
            for _ in range(2):  # some of it is on its way when the server says so
                next(requests)
            raise busy.pop()
        return stub.InferBatch(requests, timeout=timeout)

    rows = unit_rows(MANY, 8)
    client._session._inference = Stub(stub, now_and_then)
    assert error(client.predict(rows), LINEAR, rows) <= client.last_call.stats.error_bound
    busy.append(ResourceExhausted("no memory"))
    with pytest.raises(ResourceExhausted, match="no memory"):
        client.predict(rows)


def test_a_batch_plan_alone_is_enough(client: Client) -> None:
    client.spec  # noqa: B018 (asks for the offers)
    client._session._query = None
    rows = unit_rows(3, 8)
    assert error(client.predict(rows), LINEAR, rows) <= client.last_call.stats.error_bound
    assert client.plan.name == "batch"


def test_weak_primes_are_refused_in_batch_plans_too(client: Client) -> None:
    plan = usable_batches(client)[0].plan
    own, step = plan.parameters.data_primes[0], 2 * plan.parameters.degree
    others = replace(plan.parameters, data_primes=(own - step,))
    with pytest.raises(PlanRefused, match="not SEAL's"):
        description.with_own_primes(replace(plan, parameters=others))


# Which rows go where.


def options(client: Client, query: float, batch: float) -> tuple[Query, list[Batch]]:
    """The client's own plans, at these seconds a query and a batch of the smallest ring; larger ones in proportion."""
    usable = usable_batches(client)
    assert client._session._query is not None
    return Query(client._session._query.plan, Estimate(0.0, query, 0.0, 1, 1)), [
        Batch(b.plan, Estimate(0.0, batch * b.plan.records / usable[0].plan.records, 0.0, 1, 1)) for b in usable
    ]


def test_records_are_divided_by_cost(client: Client) -> None:
    link = Link.parse("10gbit,0us")
    query, batches = options(client, 0.001, 1.0)
    (small, *_), whole = batches, batches[0].plan.records
    held = {query.plan.digest, *(batch.plan.digest for batch in batches)}

    def shares(records: int) -> list[tuple[str, int]]:
        found = cheapest_for(records, query, [small], link, held)
        assert sum(share.records for share in found.shares) == records
        return [(share.plan.name, share.records) for share in found.shares]

    assert shares(999) == [("coefficient", 999)]
    assert shares(1001) == [("batch", 1001)]
    assert shares(whole + 10) == [("batch", whole), ("coefficient", 10)]
    assert shares(whole + 1500) == [("batch", whole), ("batch", 1500)]
    assert shares(3 * whole) == [("batch", 3 * whole)]
    assert cheapest_for(5, None, [small], link).shares[0].batch is small
    assert cheapest_for(0, query, batches, link).shares == ()
    with pytest.raises(InternalFault):
        cheapest_for(1, None, [], link)


def test_keys_that_have_to_be_carried_first_count(client: Client) -> None:
    link = Link.parse("8kbit,0us")  # a kilobyte a second
    query, batches = options(client, 0.001, 0.5)
    plan, held = batches[0].plan, {query.plan.digest}
    assert plan.key_bytes > 5000
    assert cheapest_for(2000, query, batches, link, held).shares[0].plan is query.plan
    assert cheapest_for(2000, query, batches, link, held | {plan.digest}).shares[0].plan is plan


def test_queries_of_one_call_share_its_round_trip(client: Client) -> None:
    link = Link.parse("10gbit,1s")
    query, _ = options(client, 0.0, 1.0)
    query = Query(query.plan, Estimate(0.0, 0.0, 1.0, 1, 1))
    per_call, held = query.plan.queries_per_call, {query.plan.digest}
    assert cheapest_for(per_call, query, [], link, held).seconds == pytest.approx(1.0)
    assert cheapest_for(per_call + 1, query, [], link, held).seconds == pytest.approx(2.0)
