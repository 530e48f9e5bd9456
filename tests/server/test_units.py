"""Guard, pool and logs, one by one."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import save_file

from secure_infer.ckks import keymaterial
from secure_infer.ckks.coefficient import CoefficientPlan, planner
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Privacy
from secure_infer.v1 import keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer_client.keys import SecretKey
from secure_infer_server import blinds
from secure_infer_server.app import App
from secure_infer_server.blinds import BlindPool, blind_bytes
from secure_infer_server.keys import service
from secure_infer_server.logs import JsonLines
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import ServedModel
from secure_infer_server.settings import Policy, Settings
from shared import linear_head, until


@pytest.fixture
def plan() -> CoefficientPlan:
    head = linear_head(8, 3)
    linear = head.as_linear()
    assert linear is not None
    return planner.choose(linear, head.contract)


@pytest.fixture
def public(plan: CoefficientPlan) -> Half:
    return public_half(plan)


def public_half(plan: CoefficientPlan) -> Half:
    """A client's public key for that plan."""
    half = keymaterial.parse(plan, SecretKey(plan.parameters).upload(plan).data).public
    assert half is not None
    return half


DIGEST = bytes(32)


def test_pool_fills_is_used_once_and_refills(plan: CoefficientPlan, public: Half) -> None:
    pool = BlindPool(1 << 30, 6)
    pool.start()
    try:
        pool.warm(plan, DIGEST, public)
        until(lambda: pool.level(plan, DIGEST) == 6)
        taker = pool.taker(plan, DIGEST, public)
        taken = [taker(time.perf_counter) for _ in range(8)]
        assert len({id(blind) for blind in taken}) == 8
        assert (taker.ready, taker.inline) == (6, 2)
        assert taker.waited > 0
        taker.done()
        until(lambda: pool.level(plan, DIGEST) == 6)
    finally:
        pool.close()


def test_refills_asked_for_while_others_are_under_way_all_arrive(plan: CoefficientPlan, public: Half) -> None:
    pool = BlindPool(1 << 30, 300)
    pool.start()
    try:
        pool.warm(plan, DIGEST, public)
        for _ in range(3):
            until(lambda: pool.level(plan, DIGEST) >= 150)
            taker = pool.taker(plan, DIGEST, public)
            for _ in range(150):
                taker(time.perf_counter)
            taker.done()
        until(lambda: pool.level(plan, DIGEST) == 300)
        assert [stock.pending for stock in pool._stocks.values()] == [0]
    finally:
        pool.close()


def test_pool_is_bounded_over_keys(plan: CoefficientPlan, public: Half) -> None:
    pool = BlindPool(15 * blind_bytes(plan), 6)  # a key needs as much as six blinds
    for number in range(4):
        pool.taker(plan, bytes([number]) * 32, public)
    assert sum(stock.least for stock in pool._stocks.values()) <= 15 * blind_bytes(plan)
    assert len(pool._stocks) == 2


class Script:
    """The process's end of a connection: what it is told, step by step, and how many blinds it sent back."""

    def __init__(self, orders: list[object], before: Callable[[], None]) -> None:
        self.orders, self.before, self.sent = orders, before, 0

    def recv(self) -> object:
        self.before()
        if not self.orders:
            raise EOFError
        return self.orders.pop(0)

    def send_bytes(self, data: bytes) -> None:
        self.sent += 1


def test_the_process_forgets_keys_it_is_told_to(
    plan: CoefficientPlan, public: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    held: list[int] = []

    class Counted(blinds.Blinder):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            alive.add(self)

    monkeypatch.setattr(blinds, "Blinder", Counted)
    monkeypatch.setattr(blinds.signal, "signal", lambda *_: None)
    tags = [bytes([number]) * 64 for number in range(3)]
    orders: list[object] = [(plan, tags[0], public, 1), (plan, tags[1], public, 2), tags[0], tags[2], tags[1]]
    script = Script(orders, lambda: held.append(len(alive)))
    blinds._prepare(script)  # type: ignore[arg-type]
    assert (held, script.sent) == ([0, 1, 2, 1, 1, 0], 3)


def test_the_process_is_told_of_every_stock_the_pool_drops(
    plan: CoefficientPlan, public: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the process never holds more keys than the pool has stocks."""
    pool = BlindPool(15 * blind_bytes(plan), 6)  # two stocks fit
    pool.start()
    told: list[object] = []
    send = pool._maker._connection.send  # type: ignore[union-attr]

    class Recorded:
        def __init__(self, connection: object) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

        def send(self, order: object) -> None:
            told.append(order)
            send(order)

    try:
        pool._maker._connection = Recorded(pool._maker._connection)  # type: ignore
        digests = [bytes([number]) * 32 for number in range(12)]
        for _ in range(3):
            for digest in digests:
                pool.warm(plan, digest, public)

        def known() -> set[bytes]:
            """The keys that the process holds after the orders so far."""
            held: set[bytes] = set()
            for order in list(told):
                if isinstance(order, bytes):
                    held.discard(order)
                else:
                    held.add(order[1])  # type: ignore[index]
                assert len(held) <= 2
            return held

        until(lambda: known() == set(pool._stocks))
        pool.forget(bytes.fromhex(plan.digest), digests[-1])
        assert len(pool._stocks) == 1
        until(lambda: known() == set(pool._stocks))
    finally:
        pool.close()


def test_pool_without_preparation_keeps_nothing(plan: CoefficientPlan, public: Half) -> None:
    pool = BlindPool(1 << 30, 0)
    pool.start()
    for number in range(50):
        taker = pool.taker(plan, bytes([number]) * 32, public)
        taker(time.perf_counter)
        taker.done()
        assert (taker.ready, taker.inline) == (0, 1)
    assert not pool._stocks
    pool.close()


def test_more_keys_than_fit_take_smaller_shares(plan: CoefficientPlan, public: Half) -> None:
    pool = BlindPool(60 * blind_bytes(plan), 16)
    pool.start()
    try:
        digests = [bytes([number]) * 32 for number in range(9)]
        for _ in range(3):
            for digest in digests:
                pool.warm(plan, digest, public)
        until(lambda: sum(pool.level(plan, digest) for digest in digests) >= 20)
        assert sum(pool.level(plan, digest) for digest in digests) <= 60
        assert sum(count for _, count in pool._maker._wanted.values()) <= 60  # type: ignore[union-attr]
    finally:
        pool.close()


def test_logs_keep_to_their_fields() -> None:
    try:
        raise ValueError("patient Jane Roe")
    except ValueError:
        record = logging.LogRecord(
            "secure_infer_server.x", logging.ERROR, __file__, 1, 'fault "%s"', ("id",), sys.exc_info()
        )
    line = json.loads(Context().run(JsonLines().format, record))  # of no call
    assert set(line) == {"time", "level", "logger", "message", "error", "frames"}
    assert line["error"] == "ValueError"
    assert "Jane" not in json.dumps(line)


def test_many_keys_and_large_blinds_do_not_lock_the_pool() -> None:
    """Requests larger than a pipe holds, blinds larger than a pipe holds, from many threads at once."""
    head = linear_head(3000, 40, bound=6.0, norm=None, scale=20.0)
    linear = head.as_linear()
    assert linear is not None
    plan = planner.choose(linear, head.contract)
    assert blind_bytes(plan) > 1 << 16
    public = public_half(plan)
    pool = BlindPool(1 << 30, 8)
    pool.start()
    try:
        digests = [bytes([number]) * 32 for number in range(12)]

        def use(digest: bytes) -> int:
            pool.warm(plan, digest, public)
            taker = pool.taker(plan, digest, public)
            for _ in range(3):
                taker(time.perf_counter)
                taker.done()
            return taker.ready + taker.inline

        with ThreadPoolExecutor(12) as threads:
            assert list(threads.map(use, digests, timeout=60)) == [3] * 12
        until(lambda: all(pool.level(plan, digest) > 0 for digest in digests), 60)
    finally:
        pool.close()


def test_stalled_uploads_end_and_leave_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UPLOAD_SECONDS", 1.0)
    linear_head(8, 3).save(tmp_path / "m.head")
    app = App(Settings(tmp_path, "127.0.0.1", 0, insecure=True, blinds_per_key=0))
    address = app.start()
    plan_digest = next(iter(app.registry.get("m").offered))
    stop = threading.Event()

    def stalled() -> Iterator[keys_pb2.UploadKeysRequest]:
        yield keys_pb2.UploadKeysRequest(header=keys_pb2.KeyHeader(model="m", plan_digest=plan_digest, size=100))
        stop.wait(30)

    try:
        with grpc.insecure_channel(address) as channel:
            keys = keys_pb2_grpc.KeyServiceStub(channel)
            calls = [keys.UploadKeys.future(stalled()) for _ in range(24)]
            with grpc.insecure_channel(address) as other:
                request = models_pb2.GetModelRequest(model="m")
                assert models_pb2_grpc.ModelServiceStub(other).GetModel(request, timeout=10).model.name == "m"
            codes = {call.exception(timeout=20).code() for call in calls}
            assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN}
    finally:
        stop.set()
        app.stop()


def test_odd_artifacts_do_not_take_down_the_others(tmp_path: Path) -> None:
    linear_head(4, 2).save(tmp_path / "good.head")
    tensors = {"0.weight": np.eye(2), "0.bias": np.zeros(2)}
    base = {
        "format": 1,
        "layers": ["linear"],
        "labels": ["a", "b"],
        "input_bound": 1.0,
        "input_norm": None,
        "digest": "x",
    }
    odd: list[dict] = [
        {"input_bound": "abc"},
        {"input_bound": 10**400},
        {"temperature": [[1], [1, 2]]},
        {"facts": "abc"},
    ]
    for number, change in enumerate(odd):
        save_file(tensors, tmp_path / f"odd{number}.head", metadata={"secure_infer": json.dumps(base | change)})
    save_file(tensors, tmp_path / "deep.head", metadata={"secure_infer": "[" * 100_000})
    registry = Registry.load(Settings(tmp_path, "127.0.0.1", 0, insecure=True))
    assert registry.names() == ["good"]
    assert len(registry.rejected) == 5


def test_one_level_that_does_not_fit_leaves_the_other() -> None:
    model = ServedModel.compile("m", linear_head(4, 2, scale=1e6), Policy(privacy=Privacy.INPUT_PRIVATE, smudging=40))
    assert Privacy.INPUT_PRIVATE in [offered.plan.privacy for offered in model.offered.values()]


def test_blinds_for_other_processes_are_used_once_and_made_anew_when_told_to(
    plan: CoefficientPlan, public: Half
) -> None:
    pool = BlindPool(1 << 30, 6)
    pool.start()
    try:
        pool.warm(plan, DIGEST, public, packed=True)
        until(lambda: pool.level(plan, DIGEST) == 6)
        taken = pool.packed(plan, DIGEST, public, 4, refill=False)
        taken += pool.packed(plan, DIGEST, public, 4, refill=False)
        assert len(set(taken)) == len(taken) == 6
        assert {len(blind) for blind in taken} == {blind_bytes(plan)}
        assert blinds.load_blind(plan, taken[0]).size() == 2
        assert pool.level(plan, DIGEST) == 0
        assert pool.packed(plan, DIGEST, public, 1, refill=True) == []
        until(lambda: pool.level(plan, DIGEST) == 6)
    finally:
        pool.close()
