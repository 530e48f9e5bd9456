"""The emulated link: bytes arrive unchanged, in order and not before their time; ends and failures are handed on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from time import perf_counter

import pytest

from secure_infer.errors import SettingsError
from secure_infer_benchmarks.forwarder import Forwarder
from secure_infer_benchmarks.forwarder_precision import kept_rate, measure, rate_on_loopback

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def connected(round_trip_ms: float = 0.0, megabits: float | None = None) -> Iterator[Pair]:
    """The two ends of one connection through a forwarder."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        with (
            Forwarder(f"127.0.0.1:{listener.getsockname()[1]}", round_trip_ms, megabits) as forwarder,
            socket.create_connection(parts(forwarder.address)) as near,
        ):
            far, _ = listener.accept()
            with far:
                near.settimeout(20)
                far.settimeout(20)
                yield near, far


def parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def everything(sink: socket.socket) -> bytes:
    """What arrives until the other end is done."""
    data = bytearray()
    while part := sink.recv(1 << 16):
        data += part
    return bytes(data)


def exactly(sink: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = sink.recv(length - len(data))
        assert part
        data += part
    return bytes(data)


def test_every_message_takes_half_a_round_trip_each_way() -> None:
    with connected(round_trip_ms=30) as (near, far):
        for source, sink in ((near, far), (far, near)) * 5:
            started = perf_counter()
            source.sendall(b"message")
            assert sink.recv(64) == b"message"
            assert perf_counter() - started >= 0.015


def test_a_rate_is_kept() -> None:
    with connected(round_trip_ms=10, megabits=40) as (near, far):
        started = perf_counter()
        Thread(target=near.sendall, args=(bytes(500_000),)).start()
        exactly(far, 500_000)
        assert perf_counter() - started >= 0.1 + 0.005


@pytest.mark.parametrize(("round_trip_ms", "megabits"), [(0.0, None), (3.0, None), (3.0, 400.0)])
def test_bytes_are_intact_both_ways_at_once(round_trip_ms: float, megabits: float | None) -> None:
    sent = {True: os.urandom(3_000_000), False: os.urandom(2_000_001)}

    with connected(round_trip_ms, megabits) as (near, far), ThreadPoolExecutor(4) as pool:

        def send(source: socket.socket, data: bytes) -> None:
            for start in range(0, len(data), 70_001):
                source.sendall(data[start : start + 70_001])
            source.shutdown(socket.SHUT_WR)

        sending = [pool.submit(send, near, sent[True]), pool.submit(send, far, sent[False])]
        arrived = pool.submit(everything, far), pool.submit(everything, near)
        assert arrived[0].result() == sent[True]
        assert arrived[1].result() == sent[False]
        for done in sending:
            done.result()


def test_a_reader_that_comes_late_gets_everything() -> None:
    data = os.urandom(40_000_000)  # more than the forwarder holds
    with connected(round_trip_ms=2) as (near, far):
        sending = Thread(target=near.sendall, args=(data,))
        sending.start()
        sending.join(0.3)
        assert sending.is_alive()  # the sender has to wait
        assert exactly(far, len(data)) == data
        sending.join()


@pytest.mark.parametrize("round_trip_ms", [0.0, 6.0])
def test_one_way_may_end_before_the_other(round_trip_ms: float) -> None:
    with connected(round_trip_ms) as (near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert everything(far) == b"question"
        far.sendall(b"answer")
        far.close()
        assert everything(near) == b"answer"


def test_connections_are_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            for _ in range(60):
                one, _ = listener.accept()
                Thread(target=lambda one=one: (one.sendall(everything(one)), one.close())).start()  # type: ignore[misc]

        def ask(address: str) -> bool:
            data = os.urandom(10_000)
            with socket.create_connection(parts(address), timeout=20) as near:
                near.sendall(data)
                near.shutdown(socket.SHUT_WR)
                return everything(near) == data

        Thread(target=echo).start()
        with Forwarder(f"127.0.0.1:{listener.getsockname()[1]}", 8.0) as forwarder, ThreadPoolExecutor(60) as pool:
            assert all(pool.map(ask, [forwarder.address] * 60))


def test_a_target_that_does_not_answer_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    with Forwarder(nobody) as forwarder:
        for _ in range(2):
            with socket.create_connection(parts(forwarder.address), timeout=20) as near:
                try:
                    assert near.recv(1) == b""
                except ConnectionResetError:
                    pass


def test_closing_ends_the_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forwarder = Forwarder(f"127.0.0.1:{listener.getsockname()[1]}")
        with socket.create_connection(parts(forwarder.address), timeout=20) as near:
            far, _ = listener.accept()
            with far:
                forwarder.close()
                assert near.recv(1) == b""
                assert far.recv(1) == b""


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, sys; from secure_infer_benchmarks.forwarder import Forwarder\n"
        "print(Forwarder('127.0.0.1:9').address, flush=True); sys.stdin.read(); os._exit(1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        address = parts(parent.stdout.readline().decode().strip())
        socket.create_connection(address).close()
        parent.stdin.close()
        assert parent.stdout.read() == b""  # the forwarder's own standard error is no part of it
    for _ in range(1000):
        try:
            socket.create_connection(address).close()
        except ConnectionRefusedError:
            return
    pytest.fail("the forwarder still listens")


def test_a_target_without_a_port_is_refused() -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        Forwarder("127.0.0.1")


def test_it_measures_itself() -> None:
    found = measure(round_trip_ms=4.0, repeats=5, megabytes=2)
    assert found["late_ms"]["quantile_05"] <= found["late_ms"]["median"] <= found["late_ms"]["quantile_95"]
    assert found["megabits"].keys() == {"without_delay", "with_delay"}


def test_it_measures_the_rate_that_it_keeps() -> None:
    assert 0 < kept_rate(80.0, round_trip_ms=20.0, seconds=0.1) < 800.0
    assert rate_on_loopback(2) > 0
