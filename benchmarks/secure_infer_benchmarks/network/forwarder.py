"""What the emulation itself costs, and how exact it is, in the run whose figures go through it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from secure_infer_benchmarks import forwarder_precision
from secure_infer_benchmarks.figures import figure
from secure_infer_benchmarks.forwarder import Forwarder
from secure_infer_benchmarks.network import tbf
from secure_infer_benchmarks.parties import credentials
from secure_infer_benchmarks.synthetic import inputs
from secure_infer_client import Client

CALLS = 60
KERNEL_MEGABITS = 100.0


def overhead(address: str, pem: dict[str, Path], model: str, precise: bool) -> dict[str, Any]:
    """Milliseconds of the server's plaintext call, direct and through a forwarder without delay or rate, in turn.

    call_overhead_ms: of the same turns, what the forwarder adds to a call: two ways through it.
    """
    with ExitStack() as stack:
        through = stack.enter_context(Forwarder(address)).address
        clients = [
            stack.enter_context(
                Client(
                    one,
                    model=model,
                    **credentials(pem),
                )
            )
            for one in (address, through)
        ]
        row = inputs(clients[0].spec.contract.features, 1) * min(1.0, clients[0].spec.contract.largest_norm)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(3 + (CALLS if precise else CALLS // 6)):
            for client, into in zip(clients, times, strict=True):
                started = perf_counter()
                client.evaluate_plaintext(row)
                if turn >= 3:
                    into.append(1e3 * (perf_counter() - started))
    direct, forwarded = times
    return {
        "direct_call_ms": figure(direct),
        "forwarded_call_ms": figure(forwarded),
        "call_overhead_ms": figure([b - a for a, b in zip(direct, forwarded, strict=True)]),
    }


def precision(links: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By link how late messages are, and at what rate bytes arrive; one rate beside that of the kernel's token bucket."""
    found = {}
    for link in links:
        exact = forwarder_precision.measure(link["round_trip_ms"], repeats=20, megabytes=8)
        found[link["name"]] = {
            "overhead_ms": exact["overhead_ms"],
            "late_ms": exact["late_ms"],
            "megabits_asked": link["megabits"],
            "megabits": forwarder_precision.kept_rate(link["megabits"], link["round_trip_ms"]),
        }
    return {"precision": found, "kernel": tbf.compare(KERNEL_MEGABITS)}
