"""Clients at once, and what one more of them takes of memory, for the suite `scaling`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from time import perf_counter, sleep
from typing import Any

from tqdm import tqdm

from secure_infer.ckks.link import Link
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.memory import resident
from secure_infer_benchmarks.rate import rate
from secure_infer_benchmarks.scaling.shapes import BASE, head, name, row
from secure_infer_benchmarks.synthetic import inputs
from secure_infer_benchmarks.throughput import Replay, Settings
from secure_infer_client import Client
from secure_infer_client.choice import in_a_row, usable
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer

LINK = Link.parse("loopback")
QUERIES = 3
"""Of each session before its memory is read: workers have its keys then, and its blinds are made."""
WARM = 3
"""Sessions before the first reading: what a first session builds for all is not one session's."""
SETTLE = 2.0


def ckks(server: LocalServer, clients: Sequence[int], slices: int, seconds: float) -> list[Row]:
    """So many clients, each with a key of its own, whose requests were encrypted beforehand.

    Predicted: no more answers a second than all cores give, each query at the planner's server time with the blind that it
    uses up, nor than clients that wait for their answers ask for.
    """
    with ExitStack() as stack:
        with Client(server.address, model=name(BASE)) as client:
            offered = client.offered
        query, _ = usable(offered.offers, LINK, offered.unit_costs)
        assert query is not None
        often = in_a_row(query, offered.unit_costs).cost.server
        replays = {}
        for count in clients:
            settings = Settings(callers=count, requests=2 * count, sessions=count)
            replays[count] = Replay(server.address, name(BASE), head(BASE), settings)
            stack.callback(replays[count].close)
            replays[count].check()
        rates, calls = _slices(clients, slices, lambda count: replays[count].rate(count, seconds))
        plan = replays[clients[0]].plan
    cores = os.cpu_count() or 1
    rows = []
    for count in clients:
        alone = count / (query.cost.server + query.cost.network)
        counts = {
            "bytes_up": plan.query_bytes,
            "bytes_down": plan.answer_bytes,
            "predicted_ms": 1e3 * often,
            "cores": cores,
        }
        predicts = ("records_a_second", min(alone, cores / often))
        words = f"{plan.kind} {plan.parameters}"
        rows.append(
            row("clients", count, "ckks", words, _figures(rates[count], calls[count]), counts, predicts=predicts)
        )
    return rows


def mpc(parties: LocalParties, clients: Sequence[int], slices: int, seconds: float) -> list[Row]:
    """So many clients of two parties, each a thread of this process that asks again and again. Nothing predicts it: parties,
    dealer and clients share this machine's cores, which they do not elsewhere."""
    with ExitStack() as stack:
        x = inputs(BASE[0], 1)
        opened = [stack.enter_context(_client(parties)) for _ in range(max(clients))]
        for one in opened:
            one.predict(x)
        sleep(SETTLE / 4)
        rates, calls = _slices(
            clients, slices, lambda count: rate([partial(one.predict, x) for one in opened[:count]], seconds)
        )
        program, last = opened[0].plan, opened[0].last_call.stats
    words = f"{program.weights} weights, {program.fraction} fraction bits"
    counts = {"bytes_up": last.bytes_up, "bytes_down": last.bytes_down, "cores": os.cpu_count() or 1}
    return [row("clients", count, "mpc", words, _figures(rates[count], calls[count]), counts) for count in clients]


Rates = tuple[dict[int, list[float]], dict[int, list[float]]]


def _slices(clients: Sequence[int], slices: int, measure: Callable[[int], tuple[float, list[float]]]) -> Rates:
    """Rates, and milliseconds of every call, by number of clients, which take turns."""
    rates: dict[int, list[float]] = {count: [] for count in clients}
    calls: dict[int, list[float]] = {count: [] for count in clients}
    for _ in tqdm(range(slices), desc="scaling: clients", leave=False, disable=None):
        for count in clients:
            found, times = measure(count)
            rates[count].append(found)
            calls[count] += times
    return rates, calls


def _figures(rates: list[float], calls: list[float]) -> dict[str, Any]:
    return {"records_a_second": figure(rates, "1/s", "higher"), "call_ms": figure(calls)}


def server_sessions(server: LocalServer, count: int) -> list[Row]:
    """Memory of the server's processes for one more client with its keys."""
    pids = [int(server.ready["pid"])]
    grown, first_ms, plan = _opened(count, pids, partial(Client, server.address, model=name(BASE), timeout=60))
    counts = {"memory_bytes": grown, "key_bytes": plan.key_bytes, "sessions": count}
    return [
        row("sessions", count, "ckks", f"{plan.kind} {plan.parameters}", {"first_call_ms": figure(first_ms)}, counts)
    ]


def party_sessions(parties: LocalParties, count: int) -> list[Row]:
    """Memory of both parties and the dealer for one more client."""
    pids = [one.process.pid for one in (parties.dealer, *parties.parties)]
    grown, first_ms, plan = _opened(count, pids, partial(_client, parties))
    counts = {"memory_bytes": grown, "key_bytes": 0, "sessions": count}
    return [row("sessions", count, "mpc", f"{plan.weights} weights", {"first_call_ms": figure(first_ms)}, counts)]


def _opened(count: int, pids: Sequence[int], client: Callable[[], Client]) -> tuple[int, list[float], Any]:
    """(bytes by which the processes grew for each of so many sessions, milliseconds of each one's first call, the plan)."""
    x = inputs(BASE[0], 1)
    first_ms: list[float] = []
    with ExitStack() as stack:

        def open_some(number: int) -> int:
            for _ in range(number):
                started = perf_counter()
                opened.append(stack.enter_context(client()))
                opened[-1].predict(x)
                first_ms.append(1e3 * (perf_counter() - started))
            for one in opened[-number:]:
                for _ in range(QUERIES):
                    one.predict(x)
            sleep(SETTLE)
            return sum(sum(resident(pid).values()) for pid in pids)

        opened: list[Client] = []
        before = open_some(WARM)
        grown = (open_some(count) - before) // count
        return grown, first_ms[WARM:], opened[0].plan


def _client(parties: LocalParties) -> Client:
    return Client(parties.addresses, model=name(BASE), scheme="mpc", timeout=60)
