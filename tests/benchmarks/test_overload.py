"""The load of `stress overload`: frames made by hand are understood by gRPC, and what comes back is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from secure_infer_benchmarks.stress import overload, overload_table
from secure_infer_benchmarks.stress.overload_load import Generator, Load
from secure_infer_benchmarks.synthetic import unit_norm_head

METHOD = "/test.Echo/Say"


@contextmanager
def echo() -> Iterator[str]:
    """A server that sends back what it got, and refuses what ends in `no`."""

    def say(message: bytes, context: grpc.ServicerContext) -> bytes:
        if message.endswith(b"no"):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room, ä")
        return message

    handler = grpc.method_handlers_generic_handler("test.Echo", {"Say": grpc.unary_unary_rpc_method_handler(say)})
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("rate", [0.0, 200.0])
@pytest.mark.parametrize("size", [3, 100_000])
def test_calls_come_back_whole_with_their_status(rate: float, size: int) -> None:
    requests = [(b"a" * size, b"yes"), (b"b" * size, b"no")]
    with echo() as address:
        calls = Generator(Load(address, METHOD, rate, 0.4, 5.0, 3, requests)).run()
    assert len(calls) > 4
    assert {call.status for call in calls} == {0, 8}
    for call in calls:
        assert call.status == 8 * (call.number % 2)
        assert call.due <= call.sent <= call.ended
        before, after = requests[call.number % 2]
        if call.status == 0:
            assert len(call.answer) == size + 16 + 3
            assert call.answer.startswith(before)
            assert call.answer.endswith(after)


def test_calls_that_are_never_answered_are_lost() -> None:
    with echo() as address:
        generator = Generator(Load(address, METHOD, 0.0, 0.2, 0.1, 1, [(b"", b"yes")], in_flight=2))
    calls = generator.run()
    assert {call.status for call in calls} == {-1}


@pytest.mark.slow
def test_a_server_outlives_a_flood() -> None:
    found: dict[str, Any] = {"cheap": overload.flooded(unit_norm_head(384, 10), 3.0, 10.0)}
    assert found["cheap"]["wrong"] == 0
    assert found["cheap"]["recovered"]
    assert "cheap" in overload_table.text(found)
