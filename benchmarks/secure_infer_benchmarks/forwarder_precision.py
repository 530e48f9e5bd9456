"""What forwarding itself costs on this machine, and how exact the delays of `forwarder` are.

python -m secure_infer_benchmarks.forwarder_precision --round-trip-ms 20
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
from threading import Thread
from time import perf_counter, sleep
from typing import Any

from secure_infer import address
from secure_infer_benchmarks.forwarder import Forwarder


def measure(round_trip_ms: float = 20.0, repeats: int = 200, megabytes: int = 128) -> dict[str, Any]:
    """Overhead, lateness and rate of a forwarder, beside a direct connection.

    overhead_ms: one way without a delay, beyond a direct connection. late_ms: one way with the delay asked for, beyond that
    delay and a direct connection whose receiver has slept as long. Each by median, 5% and 95% quantiles of `repeats`
    messages of 64 bytes each way. megabits: Mbit/s of `megabytes` sent one way, without and with the delay.
    """
    delay = round_trip_ms / 2e3
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        direct, after_sleep = (statistics.median(_one_way(target, listener, repeats, idle)) for idle in (0.0, delay))
        with Forwarder(target) as plain, Forwarder(target, round_trip_ms) as delayed:
            overhead = [1e3 * (t - direct) for t in _one_way(plain.address, listener, repeats)]
            late = [1e3 * (t - delay - after_sleep) for t in _one_way(delayed.address, listener, repeats)]
            rates = [_megabits(one.address, listener, megabytes) for one in (plain, delayed)]
    return {
        "round_trip_ms": round_trip_ms,
        "overhead_ms": _quantiles(overhead),
        "late_ms": _quantiles(late),
        "megabits": {"without_delay": rates[0], "with_delay": rates[1]},
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=20)
    return {"median": statistics.median(values), "quantile_05": cuts[0], "quantile_95": cuts[-1]}


def _connected(to: str, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection to the listener."""
    near = socket.create_connection(address.parse(to, "address"))
    far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _one_way(to: str, listener: socket.socket, repeats: int, idle: float = 0.0) -> list[float]:
    """Seconds from sending to arrival, in turn each way; `idle` seconds pass before each message is sent."""
    near, far = _connected(to, listener)
    seconds: list[float] = []

    def send(source: socket.socket) -> None:
        sleep(idle)
        seconds.append(-perf_counter())
        source.sendall(bytes(64))

    with near, far:
        for source, sink in ((near, far), (far, near)) * repeats:
            sending = Thread(target=send, args=(source,))
            sending.start() if idle else sending.run()
            sink.recv(64, socket.MSG_WAITALL)
            seconds[-1] += perf_counter()
    return seconds


def kept_rate(megabits: float, round_trip_ms: float = 0.0, seconds: float = 1.0) -> float:
    """Mbit/s through a forwarder that was asked for `megabits`, of as many bytes as take so many seconds."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Forwarder(f"127.0.0.1:{listener.getsockname()[1]}", round_trip_ms, megabits) as link,
    ):
        return _megabits(link.address, listener, megabits * seconds / 8)


def rate_on_loopback(megabytes: float) -> float:
    """Mbit/s of a connection on loopback, whatever limits it has there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return _megabits(f"127.0.0.1:{listener.getsockname()[1]}", listener, megabytes)


def _megabits(to: str, listener: socket.socket, megabytes: float) -> float:
    """Of payload that arrives, once the first of it has: the way there is no part of the rate."""
    near, far = _connected(to, listener)
    size = round(megabytes * 1e6)
    with near, far:
        sending = Thread(target=near.sendall, args=(bytes(size),))
        sending.start()
        left = size - len(far.recv(1 << 18))
        counted, started = left, perf_counter()
        while left:
            left -= len(far.recv(min(left, 1 << 18)))
        seconds = perf_counter() - started
        sending.join()
        return 8e-6 * counted / seconds


def main() -> int:
    """Print overhead and precision as JSON."""
    parser = argparse.ArgumentParser("python -m secure_infer_benchmarks.forwarder_precision", description=main.__doc__)
    parser.add_argument("--round-trip-ms", type=float, default=20.0, metavar="MS", help="of the link that is emulated")
    options = parser.parse_args()
    if not options.round_trip_ms > 0:
        parser.error("a round trip above 0 is needed")
    sys.stdout.write(json.dumps(measure(options.round_trip_ms), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
