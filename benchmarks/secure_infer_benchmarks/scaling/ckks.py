"""One CKKS server along the axes of the suite `scaling`: shapes of the head, and records of a call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter, sleep

import numpy as np
from tqdm import tqdm

from secure_infer.ckks import planner
from secure_infer.ckks.allocation import cheapest_for
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import Link
from secure_infer.ckks.planner import Candidate
from secure_infer.heads.network import Network
from secure_infer_benchmarks.engine import Bench
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.scaling.shapes import BASE, Shape, Shapes, head, name, row
from secure_infer_benchmarks.synthetic import inputs
from secure_infer_client import Client
from secure_infer_client.choice import in_a_row, usable
from secure_infer_client.local_server import LocalServer

LINK = Link.parse("loopback")
PAUSE = 0.1
"""Seconds after a call, in which blinds and masks are made again."""


def candidate(shape: Shape) -> Candidate:
    """What a client on loopback takes: the plan with the least time of all. Raises UnsupportedHead."""
    made = head(shape)
    network = Network.of(made.layers)
    wanted = planner.demand(network, made.contract)
    tried = planner.explore(network, made.contract, wanted, unit_costs(), LINK)
    if not tried.candidates:
        raise planner.refusal(tried.rejected, network, wanted)
    return tried.candidates[0]


def shapes(wanted: Shapes, queries: int) -> list[Row]:
    """Every shape's own server and key in this process, asked in turn, one record a query."""
    with ExitStack() as stack:
        chosen = {shape: candidate(shape) for shape in tqdm(wanted.all(), "plans", leave=False, disable=None)}
        benches = {shape: stack.enter_context(Bench(head(shape), one)) for shape, one in chosen.items()}
        x = {shape: inputs(shape[0], queries) for shape in chosen}
        for shape, bench in tqdm(benches.items(), desc="scaling: first queries", leave=False, disable=None):
            bench.query(x[shape][0])  # the first one builds what later ones find ready
        server: dict[Shape, list[float]] = {shape: [] for shape in chosen}
        client: dict[Shape, list[float]] = {shape: [] for shape in chosen}
        errors = dict.fromkeys(chosen, 0.0)
        for turn in tqdm(range(queries), desc="scaling: shapes", leave=False, disable=None):
            for shape, bench in benches.items():
                logits, times = bench.query(x[shape][turn])
                server[shape].append(times["server"])
                client[shape].append(times["encrypt"] + times["read"])
                exact = head(shape).evaluate(x[shape][turn][None])[0]
                errors[shape] = max(errors[shape], float(np.abs(logits - exact).max()))
    rows = []
    for axis, value, shape in wanted.points():
        one, plan = chosen[shape], chosen[shape].plan
        counts = {
            "bytes_up": plan.query_bytes,
            "bytes_down": plan.answer_bytes,
            "key_bytes": plan.key_bytes,
            "predicted_call_ms": 1e3 * one.cost.total,
            "max_logit_error": errors[shape],
            "error_bound": plan.error_bound,
        }
        figures = {"server_ms": figure(server[shape]), "client_ms": figure(client[shape])}
        words = f"{plan.kind} {plan.parameters}, {plan.ciphertexts} up"
        predicts = ("server_ms", 1e3 * one.cost.server)
        rows.append(row(axis, value, "ckks", words, figures, counts, predicts=predicts, shape=shape))
    return rows


def batches(server: LocalServer, records: Sequence[int], calls: int) -> list[Row]:
    """Calls of so many records to a server of the base head, in turn; keys are there already."""
    with Client(server.address, model=name(BASE), timeout=600) as client:
        x = {count: inputs(BASE[0], count) for count in records}
        key_bytes = {}
        for count in records:
            client.predict(x[count])
            key_bytes[count] = client.last_call.stats.key_bytes
        call: dict[int, list[float]] = {count: [] for count in records}
        spent: dict[int, list[float]] = {count: [] for count in records}
        rows = []
        for _ in tqdm(range(calls), desc="scaling: batches", leave=False, disable=None):
            for count in records:
                for _ in range(_repeats(count)):
                    started = perf_counter()
                    client.predict(x[count])
                    call[count].append(1e3 * (perf_counter() - started))
                    spent[count].append(client.last_call.stats.server_ms)
                    sleep(PAUSE)
        offered = client.offered
        query, several = usable(offered.offers, LINK, offered.unit_costs)
        held = {offer.plan.digest for offer in offered.offers}
        each = None if query is None else in_a_row(query, offered.unit_costs)
        for count in records:
            # One record finds masks and blinds made ahead; of many, each waits for its own.
            shares = cheapest_for(count, query if count == 1 else each, several, LINK, held).shares
            counts = {
                "bytes_up": sum(share.cost.bytes_up for share in shares),
                "bytes_down": sum(share.cost.bytes_down for share in shares),
                "key_bytes": key_bytes[count],
                "predicted_call_ms": 1e3 * sum(share.cost.total for share in shares),
            }
            figures = {
                "server_ms": figure(spent[count]),
                "call_ms": figure(call[count]),
                "records_a_second": figure([1e3 * count / ms for ms in call[count]], "1/s", "higher"),
            }
            words = " + ".join(f"{s.plan.kind} {s.plan.parameters}" for s in shares)
            predicts = ("server_ms", 1e3 * sum(share.cost.server for share in shares))
            rows.append(row("batch", count, "ckks", words, figures, counts, predicts=predicts))
        return rows


def _repeats(count: int) -> int:
    """In one turn: quick calls vary more."""
    return 5 if count == 1 else 1
