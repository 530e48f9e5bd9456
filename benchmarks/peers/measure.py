"""What every peer is measured by: the workload file it reads, the queries it answers, the JSON line it prints.

A peer is a pair of sides that share bytes only, as a client and a server would:

    encrypt(x) -> query bytes        client
    evaluate(query) -> answer bytes  server: loads the query, evaluates the head, saves the answer; this is what is timed
    decrypt(answer) -> logits        client

Needs numpy alone, and Python 3.10: it runs in each peer's environment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 0.01
"""An answer is called wrong when its error exceeds this share of the largest expected logit, or when a class changes."""


@dataclass(frozen=True)
class Workload:
    """y = W1 x + b1, or y = W2 (W1 x + b1)² + b2; float64.

    layers: (W, b) of shapes (out, in) and (out,), one or two. rows: inputs (B, d). logits: expected (B, K).
    """

    layers: list[tuple[Floats, Floats]]
    rows: Floats
    logits: Floats

    @classmethod
    def load(cls, path: str) -> Workload:
        """The workload of a file written by `numpy.savez`: W1, b1, perhaps W2, b2, rows, logits."""
        with np.load(path, allow_pickle=False) as file:
            layers = [(file[f"W{i}"], file[f"b{i}"]) for i in (1, 2) if f"W{i}" in file]
            return cls(layers, file["rows"], file["logits"])


class Peer(Protocol):
    """One way to evaluate a workload with a library; keys are made and weights are given when it is built."""

    variant: str
    """How it is written, in a few words."""
    version: str
    """Library and version."""
    parameters: str
    """Ring degree, primes and scale."""
    security_bits: int
    model_hidden: bool
    """Whether an answer is blinded, so that the key holder does not read weights out of it."""
    key_bytes: int
    """Public and evaluation keys that the server needs, as the library saves them."""
    note: str
    """What is known to be wrong; printed when the answers are wrong."""

    def encrypt(self, x: Floats) -> bytes:
        """The query for one row x (d,)."""

    def evaluate(self, query: bytes) -> bytes:
        """The answer of the server."""

    def decrypt(self, answer: bytes) -> Floats:
        """The logits (K,)."""


def measure(peer: Peer, workload: Workload) -> dict[str, Any]:
    """One query a row, each timed: the figures as one row of the report (times in ms, sizes in bytes)."""
    server, client, logits = [], [], []
    query = answer = b""
    for x in workload.rows:
        times = [perf_counter()]
        query = peer.encrypt(x)
        times.append(perf_counter())
        answer = peer.evaluate(query)
        times.append(perf_counter())
        logits.append(np.asarray(peer.decrypt(answer))[: workload.logits.shape[1]])
        times.append(perf_counter())
        encrypt, evaluate, decrypt = (1e3 * float(t) for t in np.diff(times))
        server.append(evaluate)
        client.append(encrypt + decrypt)
    error = float(np.abs(np.array(logits) - workload.logits).max())
    agreement = float((np.argmax(logits, axis=1) == workload.logits.argmax(axis=1)).mean())
    row = {
        "variant": peer.variant,
        "version": peer.version,
        "parameters": peer.parameters,
        "security_bits": peer.security_bits,
        "model_hidden": peer.model_hidden,
        "queries": len(workload.rows),
        "server_ms": {"median": median(server), "lowest": min(server), "highest": max(server)},
        "client_ms": {"median": median(client), "lowest": min(client), "highest": max(client)},
        "bytes_up": len(query),
        "bytes_down": len(answer),
        "key_bytes": peer.key_bytes,
        "max_logit_error": error,
        "argmax_agreement": agreement,
    }
    if agreement < 1 or not error <= TOLERANCE * float(np.abs(workload.logits).max()):
        row["note"] = peer.note
    return row


def write(row: dict[str, Any]) -> None:
    """One row as one line, at once: what is measured is kept even when a later variant runs out of time."""
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
