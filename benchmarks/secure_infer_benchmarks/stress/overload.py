"""`secure-infer stress overload`: what becomes of calls, of health checks and of the server at ten times what it can answer.

Requests are encrypted beforehand and sent from a process of its own, at moments that do not wait for answers. A cheap plan is
flooded, then one with a hidden layer. Everything shares this machine: where it cannot offer ten times the capacity, the report
says what was offered.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from secure_infer.heads import Head
from secure_infer.v1 import inference_pb2
from secure_infer.wire import status as wire_status
from secure_infer_benchmarks import throughput
from secure_infer_benchmarks.stress import overload_table
from secure_infer_benchmarks.stress.overload_http2 import Call
from secure_infer_benchmarks.stress.overload_load import ID_BYTES, Load, generate
from secure_infer_benchmarks.synthetic import square_head, unit_norm_head
from secure_infer_client.local_server import LocalServer

TIMES = 10.0
CONNECTIONS = 16
PATIENCE = 10.0  # seconds that a caller waits
INTERVAL = 0.1  # seconds between two health checks


def run(arguments: list[str]) -> int:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer stress overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each flood; default 20")
    parser.add_argument("--times", type=float, default=TIMES, help="the capacity that is asked for; default 10")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the JSON there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    heads = {"cheap": unit_norm_head(384, 10), "hidden": square_head(384, 64, 10)}
    report = {name: flooded(head, options.seconds, options.times) for name, head in heads.items()}
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report) + "\n" if options.json else overload_table.text(report))
    return 0 if all(found["wrong"] == 0 and found["recovered"] for found in report.values()) else 1


def flooded(head: Head, seconds: float, times: float) -> dict[str, Any]:
    """One head's server before, during and after a flood."""
    with tempfile.TemporaryDirectory() as directory:
        head.save(Path(directory) / "head.head")
        with LocalServer(Path(directory), "--batches", "0") as server:
            replay = throughput.Replay(server.address, "head", head, throughput.Settings(requests=16, sessions=2))
            try:
                replay.check()
                return _measured(server, replay, seconds, times)
            finally:
                replay.close()


def _measured(server: LocalServer, replay: throughput.Replay, seconds: float, times: float) -> dict[str, Any]:
    requests = [_cut(request) for request in replay.requests]
    calm = Load(server.address, throughput.INFER, 0.0, min(4.0, seconds), PATIENCE, CONNECTIONS, requests)
    sent(replace(calm, seconds=1.0))  # warms up
    before = sent(calm)
    capacity = _rate(before, calm.seconds)
    flood = replace(calm, rate=times * capacity, seconds=seconds, seed=1)
    with Prober(server.address, requests) as prober:
        during = sent(flood)
    ended = monotonic()
    back = _recovery(server.address, requests)
    after = sent(calm)
    # All that came, against plaintext; those that never ended are counted as lost.
    wrong = sum(not _is_right(replay, call) for call in [*before, *during, *after] if call.status == 0)
    turned = [call for call in during if call.status > 0]
    refused = [call for call in turned if call.status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]
    again = _rate(after, calm.seconds)
    return {
        "plan": f"{replay.plan.kind} {replay.plan.parameters}",
        "bytes_up": replay.plan.query_bytes,
        "capacity": capacity,
        "asked": flood.rate,
        "offered": len(during) / seconds,
        "offered_times_capacity": len(during) / seconds / capacity,
        "statuses": dict(Counter(_name(call.status) for call in during)),
        "answered": _rate(during, seconds),
        "turned_away_ms": _spread([call.ended - call.due for call in turned]),
        "refused_ms": _spread([call.ended - call.due for call in refused]),
        "refused_since_sent_ms": _spread([call.ended - call.sent for call in refused]),
        "answered_ms": _spread([call.ended - call.due for call in during if call.status == 0]),
        "held_back_ms": _spread([call.sent - call.due for call in during if call.sent]),
        "wrong": wrong,
        "health": prober.report(),
        "recovery_seconds": None if back is None else back - ended,
        "capacity_after": again,
        "recovered": back is not None and again > 0.7 * capacity,
    }


def sent(load: Load) -> list[Call]:
    """The calls of a load, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=generate, args=(theirs, load), daemon=True)
    process.start()
    theirs.close()
    found: list[Call] = mine.recv()
    process.join()
    return found


class Prober:
    """Health checks and single calls through gRPC's own client, while a flood goes on."""

    def __init__(self, address: str, requests: Sequence[tuple[bytes, bytes]]) -> None:
        self._address, self._requests = address, requests
        self._ending = threading.Event()
        self._health: list[tuple[str, float]] = []
        self._calls: Counter[str] = Counter()
        self._hinted = 0
        self._threads = [threading.Thread(target=work) for work in (self._check, self._call)]

    def __enter__(self) -> Prober:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _check(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not self._ending.wait(INTERVAL):
                began = monotonic()
                try:
                    found = stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0).status
                    said = str(health_pb2.HealthCheckResponse.ServingStatus.Name(found))
                except grpc.RpcError as error:
                    said = error.code().name
                self._health.append((said, monotonic() - began))

    def _call(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            infer, number = channel.unary_unary(throughput.INFER), 0
            while not self._ending.wait(INTERVAL):
                number += 1
                before, after = self._requests[number % len(self._requests)]
                try:
                    infer(before + number.to_bytes(ID_BYTES, "big") + after, timeout=PATIENCE)
                    self._calls["answered"] += 1
                except grpc.RpcError as error:
                    status = rpc_status.from_call(error)
                    known = None if status is None else wire_status.from_status(status)
                    self._calls[error.code().name if known is None else known.reason] += 1
                    self._hinted += known is not None and "retry_after_ms" in known.details

    def report(self) -> dict[str, Any]:
        said = Counter(name for name, _ in self._health)
        return {
            "checks": len(self._health),
            "said": dict(said),
            "ms": _spread([seconds for name, seconds in self._health if name == "SERVING"]),
            "longest_without": _longest_run([name != "SERVING" for name, _ in self._health]),
            "calls_beside": dict(self._calls),
            "calls_with_hint": self._hinted,
        }


def _recovery(address: str, requests: Sequence[tuple[bytes, bytes]]) -> float | None:
    """When three calls in a row were answered; None: not within a minute."""
    started, row = monotonic(), 0
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(throughput.INFER)
        for number in range(1 << 32, (1 << 32) + 1200):
            before, after = requests[number % len(requests)]
            try:
                infer(before + number.to_bytes(ID_BYTES, "big") + after, timeout=PATIENCE)
                row += 1
            except grpc.RpcError:
                row = 0
                sleep(0.05)
            if row == 3:
                return monotonic()
            if monotonic() - started > 60:
                break
    return None


def _cut(request: bytes) -> tuple[bytes, bytes]:
    """A request before and after its id."""
    message = inference_pb2.InferRequest.FromString(request)
    before, _, after = request.partition(message.request_id)
    return before, after


def _is_right(replay: throughput.Replay, call: Call) -> bool:
    return replay.error(call.number, call.answer) <= replay.plan.error_bound


def _rate(calls: Sequence[Call], seconds: float) -> float:
    return sum(call.status == 0 for call in calls) / seconds


def _name(status: int) -> str:
    return next((code.name for code in grpc.StatusCode if code.value[0] == status), "LOST")


def _longest_run(flags: Sequence[bool]) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Milliseconds: median, 99th percentile, most."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = {"median": len(ordered) // 2, "p99": int(0.99 * len(ordered)), "most": -1}
    return {name: 1e3 * ordered[place] for name, place in at.items()}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
