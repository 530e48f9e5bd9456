"""This project's rows of the comparison, read as the peers' are: one record a query, one thread a process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from time import sleep
from typing import Any

import numpy as np

from secure_infer.ckks.plan import DEFAULT_SMUDGING
from secure_infer.errors import SecureInferError
from secure_infer.mpc.program import Weights
from secure_infer_benchmarks.cost.asked import Asked
from secure_infer_benchmarks.cost.ways import security
from secure_infer_benchmarks.engine import Case, choose, run
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.peers.workload import Workload

WHO = "secure-infer"
MOST_BYTES = {"quickest": 570_000, "few bytes": 160_000}
"""Of a query's ciphertexts: the quickest server within them is asked."""
HELD = {Weights.REPLICATED: "public", Weights.SHARED: "shared"}
"""How the parties hold the weights, as the peers call it."""
PAUSE = 0.03
"""Seconds after a query to the parties, in which their stores fill again."""


def encrypted(workload: Workload, queries: int) -> list[Row]:
    """CKKS, both private: the server's whole handling of a query without a network, and the client's work beside it."""
    found: dict[Any, Row] = {}
    for wanted, most in MOST_BYTES.items():
        try:
            candidate = choose(Case(WHO, workload.head, DEFAULT_SMUDGING, None, most))
        except SecureInferError as problem:
            found[wanted] = {"id": f"{WHO}/ckks, {wanted}", "who": WHO, "reason": problem.message}
            continue
        plan = candidate.plan
        if plan.digest in found:
            continue
        x = np.resize(workload.rows, (queries, workload.head.features))
        exact = workload.head.evaluate(x)
        logits, stages = run(workload.head, candidate, x, WHO)
        found[plan.digest] = {
            "id": f"{WHO}/ckks, {wanted}",
            "who": WHO,
            "variant": f"CKKS, {candidate.kind} plan, {wanted}",
            "version": version("secure-infer"),
            "parameters": str(plan.parameters),
            "security": security(plan),
            "note": "",
            "figures": {
                "server_ms": figure([stage["server"] for stage in stages]),
                "client_ms": figure([stage["encrypt"] + stage["read"] for stage in stages]),
            },
            "counts": {
                "bytes_up": plan.query_bytes,
                "bytes_down": plan.answer_bytes,
                "key_bytes": plan.key_bytes,
                "max_logit_error": float(np.abs(logits - exact).max()),
                "agreement": float((logits.argmax(axis=1) == exact.argmax(axis=1)).mean()),
            },
        }
    return list(found.values())


def shared(workloads: Sequence[Workload], queries: int) -> dict[str, list[Row]]:
    """Two parties and a dealer, processes of their own with mutual TLS on every link, on loopback; rows by workload."""
    served = {
        (work.name, weights): Served(f"{work.name}-{weights}", work.head, weights)
        for work in workloads
        for weights in HELD
    }
    rows: dict[str, list[Row]] = {work.name: [] for work in workloads}
    with ExitStack() as stack:
        parties = stack.enter_context(Parties(list(served.values())))
        asked: dict[tuple[str, Weights], Asked] = {}
        for work in workloads:
            for weights in HELD:
                one = served[work.name, weights]
                if one.name in parties.rejected:
                    row = {"id": f"{WHO}/mpc, weights {HELD[weights]}", "who": WHO, "weights": HELD[weights]}
                    rows[work.name].append(row | {"reason": parties.rejected[one.name]})
                    continue
                client = stack.enter_context(parties.client(one.name))
                asked[work.name, weights] = Asked(work.head, work.rows, client)
        for one_way in asked.values():
            one_way.warm_up()
        for number in range(queries):
            for one_way in asked.values():
                one_way.ask(number)
                sleep(PAUSE)
        for (name, weights), one_way in asked.items():
            rows[name].append(_shared_row(one_way, weights))
    return rows


def _shared_row(asked: Asked, weights: Weights) -> Row:
    client = [one.encrypt_ms + one.decrypt_ms for one in asked.stats]
    counts = asked.counts()
    kept = ("bytes_up", "bytes_down", "max_logit_error", "agreement", "rounds", "link_bytes")
    program = asked.client.plan
    return {
        "id": f"{WHO}/mpc, weights {HELD[weights]}",
        "who": WHO,
        "variant": f"two parties and a dealer, weights {HELD[weights]}",
        "version": version("secure-infer"),
        "parameters": f"Z_2^64, {program.fraction} fraction bits",
        "security": security(program),
        "weights": HELD[weights],
        "note": "mutual TLS 1.3 on every link",
        "figures": {
            "server_ms": figure([whole - part for whole, part in zip(asked.call_ms, client, strict=True)]),
            "client_ms": figure(client),
            "call_ms": figure(asked.call_ms),
        },
        "counts": {"key_bytes": 0, **{name: counts[name] for name in kept if counts.get(name) is not None}},
    }
