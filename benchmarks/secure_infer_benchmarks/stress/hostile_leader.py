"""A hostile party 0: takes the lanes that party 1 makes, and opens requests on them that no honest leader would."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random

from secure_infer.errors import CATALOGUE, InternalFault
from secure_infer_benchmarks.stress import hostile_raw
from secure_infer_benchmarks.stress.hostile_inputs import Input
from secure_infer_server.mpc.frames import HEADER, HELLO_BYTES, Frame, Hello, Kind

SECONDS = 10.0  # for party 1 to connect, and to answer


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=16)


def lead(
    listener: socket.socket,
    inputs: Iterable[tuple[int, Input]],
    told: Callable[[int, Input, str, str], None],
    canary: bytes,
) -> None:
    """One input after the other, as many on a lane as it stays up for. told: called with each, its outcome and problem."""
    rng, lane, request = Random(0), None, 0
    listener.settimeout(SECONDS)
    for index, made in inputs:
        try:
            if lane is None:
                lane, request = _accepted(listener, rng), 0
            request += 1
            outcome, problem = _asked(lane, request, made, canary)
        except TimeoutError:
            outcome, problem = "never answered", f"party 1 did not connect, or did not answer, in {SECONDS:g} s"
        except OSError:
            outcome, problem = "closed", ""
        told(index, made, outcome, problem)
        if outcome not in CATALOGUE and lane is not None:
            lane.close()
            lane = None
    if lane is not None:
        lane.close()


def _accepted(listener: socket.socket, rng: Random) -> socket.socket:
    while True:
        made, _ = listener.accept()
        made.settimeout(SECONDS)
        with suppress(OSError):  # it waited for too long before, and came again
            other = Hello.unpack(_exactly(made, HELLO_BYTES), 1)
            made.sendall(hostile_raw.hello(rng, 0, other.lane))
            return made


def _asked(lane: socket.socket, request: int, made: Input, canary: bytes) -> tuple[str, str]:
    if len(made.messages) > 1:  # frames that are out of step: the lane ends
        lane.sendall(made.messages[1])
        lane.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while lane.recv(1 << 16):
                pass
        return "closed", ""
    payload = made.messages[0]
    lane.sendall(HEADER.pack(Kind.START, 0, request, len(payload)) + payload)
    frame = Frame.unpack(_exactly(lane, HEADER.size))
    if frame.kind is not Kind.REFUSED:
        return frame.kind.name, ""
    text = _exactly(lane, frame.length)
    reason = str(json.loads(text)["reason"])
    if canary in text:
        return reason, "a refusal holds the canary"
    return reason, f"an unexpected fault: {text.decode()}" if reason == InternalFault.reason else ""


def _exactly(lane: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = lane.recv(count - len(data))
        if not part:
            raise ConnectionError("party 1 closed the lane")
        data += part
    return data
