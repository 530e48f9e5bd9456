"""Honest clients beside the hostile ones: every answer is compared with the head in the clear."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secure_infer.errors import SecureInferError
from secure_infer.heads import Head
from secure_infer_benchmarks.stress.hostile_layout import HONEST, Served, heads, shared_heads
from secure_infer_client import Client

BATCH_ROWS = 3000
PAUSE = 0.15  # seconds between queries


@dataclass
class Tally:
    """records: answered and right. wrong: and not. refused: calls, by reason. largest: error, as a part of its bound."""

    records: int = 0
    calls: int = 0
    wrong: int = 0
    largest: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)


def work(served: Served, stop: Any, told: Any, seed: int) -> None:
    """A process: queries until `stop` is set, at least one of each model; then puts a dict of tallies, by client."""
    rng = np.random.default_rng(seed)
    tallies: dict[str, Tally] = {}
    with ExitStack() as stack:
        clients = [(name, head, stack.enter_context(client), rows) for name, head, client, rows in _clients(served)]
        rounds = 0
        while not stop.is_set() or not rounds:
            for name, head, client, rows in clients:
                if rows > 1 and rounds % 10:
                    continue
                _ask(client, head, rows, rng, tallies.setdefault(name, Tally()))
                time.sleep(PAUSE)
            rounds += 1
    told.put(tallies)


def _clients(served: Served) -> Iterator[tuple[str, Head, Client, int]]:
    authority, key, chain = served.credentials(HONEST)
    tls: dict[str, Any] = {"root_certificates": authority, "private_key": key, "certificate_chain": chain}
    for name, head in heads().items():
        yield f"ckks {name}", head, Client(served.addresses["ckks"].address, model=name, timeout=60.0, **tls), 1
    small = heads()["small"]
    yield (
        "ckks small, batches",
        small,
        Client(served.addresses["ckks"].address, model="small", timeout=60.0, **tls),
        BATCH_ROWS,
    )
    yield "ckks small, without TLS", small, Client(served.addresses["open"].address, model="small", timeout=60.0), 1
    parties = (served.addresses["party0"].address, served.addresses["party1"].address)
    for name, head in shared_heads().items():
        yield f"mpc {name}", head, Client(parties, scheme="mpc", model=name, timeout=60.0, **tls), 1


def _ask(client: Client, head: Head, rows: int, rng: np.random.Generator, tally: Tally) -> None:
    x = rng.normal(size=(rows, head.contract.features))
    x /= 1.001 * np.linalg.norm(x, axis=1, keepdims=True)
    tally.calls += 1
    try:
        found = client.predict(x)
    except SecureInferError as error:
        tally.refused[error.reason] += 1
        return
    worst = float(np.abs(found - head.evaluate(x)).max() / client.last_call.stats.error_bound)
    tally.largest = max(tally.largest, worst)
    tally.records += rows
    tally.wrong += worst > 1.0
