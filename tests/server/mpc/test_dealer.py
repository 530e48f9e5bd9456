"""What a dealer admits, whose turn it is, what it queues, and who may sit at which seat."""

from __future__ import annotations

import json
import queue
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import MalformedRequest, ResourceExhausted, SecureInferError, SettingsError
from secure_infer.mpc import masks
from secure_infer.mpc.comparison import Relu
from secure_infer.mpc.correlations import Need, Recipe, Square, WeightProduct
from secure_infer.mpc.streams import fresh_key
from secure_infer.v1 import mpc_pb2, mpc_pb2_grpc
from secure_infer_server.commands import certs
from secure_infer_server.commands import dealer as command
from secure_infer_server.mpc import epoch as epochs
from secure_infer_server.mpc import recipes, seats
from secure_infer_server.mpc.dealing import DealerProcess
from secure_infer_server.mpc.endpoint import Identity, Listening
from secure_infer_server.mpc.epoch import Epoch
from secure_infer_server.mpc.seats import Seat
from shared import until

PROGRAM = "ab" * 32


def recipe(*needs: Need, rows: int = 1, program: str = PROGRAM) -> Recipe:
    return Recipe(program, rows, needs or (Square(4),))


# Recipes from foreign bytes.


def entry(**changes: Any) -> bytes:
    return json.dumps(json.loads(recipe().as_json()) | changes, sort_keys=True).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        entry(program="x"),
        entry(program="AB" * 32),
        entry(program=None),
        entry(rows=0),
        entry(rows=-1),
        entry(needs=[]),
        entry(needs=5),
        entry(needs=[{"kind": "triple", "count": 1}]),
        entry(needs=[{"kind": "square", "count": 0}]),
        entry(needs=[{"kind": "square", "count": 1.0}]),
        entry(needs=[{"kind": "square", "count": True}]),
        entry(needs=[{"kind": "square", "count": 1, "extra": 1}]),
        entry(needs=[{"kind": "square"}]),
        entry(needs=[{"kind": "square", "count": 1 << 26}] * 2),
        entry(extra=1),
        recipe().as_json() + b" ",
        recipe().as_json().replace(b'"rows": 1', b'"rows": 1e999'),
        recipe(WeightProduct(0, 1, 4, 2), WeightProduct(0, 1, 2, 4)).as_json(),
        recipe(*[Square(1)] * 4000).as_json(),
    ],
)
def test_malformed_recipes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        recipes.foreign(data)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_do_more_than_raise(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        recipes.foreign(data)


def test_recipes_too_large_to_deal_are_refused() -> None:
    for large in (recipe(Square(recipes.MAX_WORDS // 2 + 1)), recipe(WeightProduct(0, 1, 1 << 13, 1 << 13))):
        with pytest.raises(ResourceExhausted):
            recipes.foreign(large.as_json())
    assert recipes.foreign(recipe(Square(recipes.MAX_WORDS // 2)).as_json()).rows == 1


def test_masks_of_one_tensor_do_not_depend_on_others() -> None:
    seed, shapes = fresh_key(), {0: (3, 2), 1: (3, 2)}
    both = masks.expand(seed, shapes)
    assert (masks.expand(seed, {1: (3, 2)})[1] == both[1]).all()
    assert (both[0] != both[1]).all()
    assert masks.mask_bytes(shapes) == sum(mask.nbytes for mask in both.values())


# Epochs.


@pytest.fixture
def pair() -> tuple[Seat, Seat]:
    return Seat(0, lambda: None, lambda: None), Seat(1, lambda: None, lambda: None)


def queued(seat: Seat) -> list[mpc_pb2.DealResponse]:
    """What waits at a seat; closes it."""
    messages = list(seat._waiting)
    seat.close()
    return messages


def test_nothing_is_dealt_without_credit_of_both(pair: tuple[Seat, Seat]) -> None:
    epoch, wanted = Epoch(pair), recipe().as_json()
    epoch.want(0, wanted, 3)
    assert epoch.next() is None
    epoch.want(1, wanted, 2)
    assert [epoch.next() is not None for _ in range(3)] == [True, True, False]
    epoch.want(1, wanted, 5)
    assert epoch.next() is not None
    assert epoch.next() is None


def test_large_recipes_do_not_starve_small_ones_nor_the_other_way_round(pair: tuple[Seat, Seat]) -> None:
    epoch = Epoch(pair)
    small, large = recipe(Square(500)), recipe(Square(10_000), rows=20)
    for one in (large, small):
        for party in (0, 1):
            epoch.want(party, one.as_json(), 1000)
    turns = []
    for _ in range(210):
        order = epoch.next()
        assert order is not None
        turns.append(order.recipe.rows)
    assert Counter(turns) == {1: 200, 20: 10}
    assert turns.index(20) >= 19
    # One that comes back after a while is not owed the turns it did not ask for.
    late = recipe(Square(500), rows=3)
    for party in (0, 1):
        epoch.want(party, late.as_json(), 1000)
    found = Counter(order.recipe.rows for _ in range(100) if (order := epoch.next()))
    assert abs(found[1] - found[3]) <= 1


def test_credits_and_recipes_are_bounded(pair: tuple[Seat, Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    epoch, wanted = Epoch(pair), recipe().as_json()
    epoch.want(0, wanted, recipes.MAX_CREDITS)
    for count in (1, 0, 1 << 32):
        with pytest.raises(MalformedRequest, match="outstanding"):
            epoch.want(0, wanted, count)
    monkeypatch.setattr(epochs, "MAX_RECIPES", 3)
    epoch.want(1, recipe(rows=2).as_json(), 1)
    epoch.want(1, recipe(rows=3).as_json(), 1)
    with pytest.raises(ResourceExhausted):
        epoch.want(1, recipe(rows=4).as_json(), 1)
    epoch.want(0, recipe(rows=2).as_json(), 1)
    assert epoch.next() is not None  # rows 2, which nobody waits for any more
    epoch.want(1, recipe(rows=4).as_json(), 1)
    assert sorted(order.recipe.rows for order in epoch.orders.values()) == [1, 3, 4]


def test_weight_masks_are_made_once_and_bounded(pair: tuple[Seat, Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Epoch(pair)
    one, other = recipe(WeightProduct(0, 1, 4, 2)), recipe(WeightProduct(0, 7, 4, 2), rows=7)
    assert epoch.masks(one)[0] is epoch.masks(other)[0]
    with pytest.raises(SecureInferError, match="other shapes"):
        epoch.masks(recipe(WeightProduct(0, 1, 2, 4)))
    monkeypatch.setattr(recipes, "MAX_MASK_BYTES", 100)
    with pytest.raises(ResourceExhausted):
        epoch.masks(recipe(WeightProduct(0, 1, 4, 2), program="cd" * 32))
    expected = epoch.masks(one)[0].words
    seeds = [[m.masks.seed for m in queued(seat) if m.HasField("masks")] for seat in pair]
    assert [len(found) for found in seeds] == [1, 1]
    assert seeds[0] != seeds[1]
    first, second = (masks.expand(found[0], one.tensors())[0] for found in seeds)
    assert (first + second == expected).all()


# Seats.


def test_a_seat_is_bounded_in_bytes_and_in_time(pair: tuple[Seat, Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = Epoch(pair)
    for party in (0, 1):
        epoch.want(party, recipe().as_json(), 9)
    large = mpc_pb2.DealResponse(bundle=mpc_pb2.DealBundle(corrections=bytes(seats.FULL_BYTES)))
    now = time.monotonic()
    assert epoch.next() is not None
    pair[0].send(large)
    assert pair[0].full
    assert epoch.next() is None
    assert not pair[0].stalled(now + 1)
    assert pair[0].stalled(now + seats.STALL_SECONDS + 1)
    sent = pair[0].outgoing()
    assert next(sent).HasField("epoch")
    assert next(sent).HasField("bundle")
    assert epoch.next() is None  # still on its way
    pair[0].send(large)
    next(sent)
    pair[0].close()
    assert list(sent) == []
    pair[0].send(large)
    assert not list(pair[0].outgoing())


@pytest.mark.parametrize("taken", [False, True])
def test_a_closed_seat_says_why_and_hangs_up_when_nobody_listens(monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    monkeypatch.setattr(seats, "_PARTING_SECONDS", 1.5 if taken else 0.2)
    hung: list[int] = []
    seat = Seat(0, lambda: hung.append(1), lambda: None)
    seat.send(mpc_pb2.DealResponse())
    sent = seat.outgoing()
    next(sent)
    seat.close(MalformedRequest("no"))
    seat.close()
    if taken:
        with pytest.raises(MalformedRequest, match="no"):
            next(sent)
        time.sleep(1.8)
    else:
        until(lambda: hung)
    assert hung == ([] if taken else [1])


# Over gRPC.


@pytest.fixture
def dealing() -> Iterator[tuple[DealerProcess, str]]:
    process = DealerProcess(Listening("127.0.0.1", 0, None))
    yield process, process.start()
    process.stop()


class Caller:
    """A party's stream by hand. messages: what it says; then it says no more."""

    def __init__(self, channel: grpc.Channel, *messages: mpc_pb2.DealRequest) -> None:
        self._left: queue.SimpleQueue[mpc_pb2.DealRequest | None] = queue.SimpleQueue()
        for message in messages:
            self._left.put(message)
        self.call = mpc_pb2_grpc.DealerServiceStub(channel).Deal(iter(self._left.get, None), timeout=30)

    def say(self, message: mpc_pb2.DealRequest | None) -> None:
        self._left.put(message)

    def failure(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ends."""
        with pytest.raises(grpc.RpcError) as caught:
            list(self.call)
        self.say(None)
        return caught.value.code(), caught.value.details()


def hello(party: int) -> mpc_pb2.DealRequest:
    return mpc_pb2.DealRequest(hello=mpc_pb2.DealHello(party=party))


def want(data: bytes, count: int = 1) -> mpc_pb2.DealRequest:
    return mpc_pb2.DealRequest(want=mpc_pb2.DealWant(recipe=data, count=count))


def test_wrong_messages_end_the_stream_with_their_reason(dealing: tuple[DealerProcess, str]) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    with grpc.insecure_channel(dealing[1]) as channel:
        for first in (want(recipe().as_json()), hello(2), mpc_pb2.DealRequest()):
            assert Caller(channel, first).failure() == (
                invalid,
                "deal: expected a hello of party 0 or 1 in the first message",
            )
        assert Caller(channel, hello(0), want(recipe().as_json())).failure()[0] is invalid  # before any epoch
        for data in (b"{}", entry(rows=0)):
            other, party = Caller(channel, hello(1)), Caller(channel, hello(0))
            assert next(party.call).HasField("epoch")
            party.say(want(data))
            code, details = party.failure()
            assert code is invalid
            assert details.startswith("recipe")
            assert all(message.HasField("epoch") for message in other.call)  # its epoch ended with the other's stream
            other.say(None)
        other, party = Caller(channel, hello(1)), Caller(channel, hello(0))
        assert next(party.call).HasField("epoch")
        party.say(hello(0))
        assert party.failure()[0] is invalid
        other.say(None)


def test_one_live_stream_a_party(dealing: tuple[DealerProcess, str]) -> None:
    with grpc.insecure_channel(dealing[1]) as channel:
        old = Caller(channel, hello(0))
        old.call.initial_metadata()
        new = Caller(channel, hello(0))
        code, details = old.failure()
        assert code is grpc.StatusCode.UNKNOWN
        assert "newer stream of party 0" in details
        other = Caller(channel, hello(1))
        ids = [next(caller.call).epoch.id for caller in (new, other)]
        assert ids[0] == ids[1]
        assert dealing[0].dealer.figures().parties == (True, True)
        new.say(None)
        assert not list(other.call)  # ended in order: the epoch is over
        other.say(None)
        until(lambda: dealing[0].dealer.figures().parties == (False, False))


def test_a_party_that_does_not_read_is_dropped(
    dealing: tuple[DealerProcess, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "STALL_SECONDS", 1.0)
    dealer, large = dealing[0].dealer, recipe(Relu(1 << 14), rows=256).as_json()
    with grpc.insecure_channel(dealing[1], [("grpc.max_receive_message_length", -1)]) as channel:
        callers = [Caller(channel, hello(party)) for party in (0, 1)]
        for caller in callers:
            assert next(caller.call).HasField("epoch")
            caller.say(want(large, 1000))
        received = sum(message.HasField("bundle") for message in callers[1].call)
        assert (
            0 < received <= seats.FULL_BYTES // (15 * 8 << 14) + 5
        )  # not a thousand: what the queue and the socket hold
        assert dealer.figures().parties == (False, False)
        for caller in callers:
            caller.say(None)


def test_one_recipe_that_cannot_be_dealt_does_not_stop_the_others(dealing: tuple[DealerProcess, str]) -> None:
    good, bad = recipe(WeightProduct(0, 1, 4, 2)), recipe(WeightProduct(0, 1, 2, 4))
    with grpc.insecure_channel(dealing[1]) as channel:
        callers = [Caller(channel, hello(party)) for party in (0, 1)]
        for caller in callers:
            next(caller.call)
        found: list[list[Any]] = [[], []]
        for wanted, events in (([good], 2), ([bad, good], 1)):  # which is bad is settled by which is dealt first
            for one in wanted:
                for caller in callers:
                    caller.say(want(one.as_json()))
            for caller, got in zip(callers, found, strict=True):
                got += [next(caller.call) for _ in range(events)]
        for got in found:
            assert [message.WhichOneof("event") for message in got] == ["masks", "bundle", "bundle"]
            assert {message.bundle.recipe for message in got[1:]} == {good.digest}
        until(lambda: dealing[0].dealer.figures().refused == 1)
        for caller in callers:
            caller.say(None)


def test_what_is_dealt_is_uniform(dealing: tuple[DealerProcess, str]) -> None:
    """Everything that one party gets, seeds apart from their expansion: a chi-square test on its bytes."""
    one = recipe(WeightProduct(0, 8, 64, 32), Square(512), Relu(64), rows=8)
    with grpc.insecure_channel(dealing[1]) as channel:
        callers = [Caller(channel, hello(party)) for party in (0, 1)]
        for caller in callers:
            next(caller.call)
            caller.say(want(one.as_json(), 40))
        for caller, least in zip(callers, (400_000, 1000), strict=True):
            found = [next(caller.call) for _ in range(41)][1:]
            data = b"".join(m.bundle.seed + m.bundle.corrections for m in found)
            assert len(data) >= least
            counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
            statistic = ((counts - len(data) / 256) ** 2 / (len(data) / 256)).sum()
            assert 255 - 6 * 22.6 < statistic < 255 + 6 * 22.6  # six standard deviations of chi-square with 255 degrees
            assert len({m.bundle.id for m in found}) == len({m.bundle.seed for m in found}) == 40
        for caller in callers:
            caller.say(None)


# Roles.


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certs.make(tmp_path_factory.mktemp("pki"), ["localhost", "127.0.0.1"], "ward-7", 2)


def test_nobody_gets_the_stream_of_another_party(pki: dict[str, Path], dealing: tuple[DealerProcess, str]) -> None:
    """The attack: with both streams, whoever has one share has the masks. Without roles anybody gets any stream."""
    with grpc.insecure_channel(dealing[1]) as channel:
        callers = [Caller(channel, hello(party)) for party in (0, 1)]  # one attacker, both seats
        assert all(next(caller.call).HasField("epoch") for caller in callers)
        for caller in callers:
            caller.say(None)
    process = DealerProcess(Listening("127.0.0.1", 0, Identity(pki["dealer.pem"], pki["dealer.key"], pki["ca.pem"])))
    address = process.start()
    denied = grpc.StatusCode.PERMISSION_DENIED
    try:
        for name, outcomes in {
            "party0": (None, denied),
            "party1": (denied, None),
            "client": (denied, denied),
        }.items():
            files = [pki[file].read_bytes() for file in ("ca.pem", f"{name}.key", f"{name}.pem")]
            with grpc.secure_channel(address, grpc.ssl_channel_credentials(*files)) as channel:
                for party, outcome in enumerate(outcomes):
                    caller = Caller(channel, hello(party))
                    if outcome is None:
                        caller.call.initial_metadata()
                        caller.say(None)
                        assert not list(caller.call)
                    else:
                        assert caller.failure()[0] is outcome
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(pki["ca.pem"].read_bytes())) as channel:
            assert Caller(channel, hello(0)).failure()[0] is grpc.StatusCode.UNAVAILABLE  # no certificate at all
        assert process.dealer.figures().epochs == 0
    finally:
        process.stop()


# The command.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "127.0.0.1:0"], "give --tls-cert"),
        (
            ["--listen", "127.0.0.1:0", "--tls-cert", "x", "--tls-key", "y"],
            "give --tls-cert",
        ),
        (["--listen", "127.0.0.1:0", "--insecure", "--client-ca", "x"], "contradicts"),
        (["--listen", "0.0.0.0:0", "--insecure"], "loopback only"),
        (["--listen", "nowhere", "--insecure"], "HOST:PORT"),
    ],
)
def test_wrong_use(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        command.run(arguments)


def test_a_port_in_use_is_an_error(dealing: tuple[DealerProcess, str]) -> None:
    with pytest.raises(SettingsError, match="port is in use"):
        DealerProcess(Listening("127.0.0.1", int(dealing[1].rpartition(":")[2]), None)).start()
