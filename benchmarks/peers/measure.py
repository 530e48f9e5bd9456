"""What every peer is measured by: the workload file it reads, the queries it answers, the JSON line it prints.

A peer is a pair of sides that share bytes only, as a client and a server would:

    encrypt(x) -> query bytes        client
    evaluate(query) -> answer bytes  server: loads the query, evaluates the head, saves the answer; this is what is timed
    decrypt(answer) -> logits        client

Needs numpy alone, and Python 3.10: it runs in each peer's environment.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_QUERIES = 30
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


LATTICES = "the hardness of Ring-LWE; nobody is trusted"
"""What the privacy of an input rests on with homomorphic encryption, where the client alone holds the secret key."""


class Peer(Protocol):
    """One way to evaluate a workload with a library; keys are made and weights are given when it is built."""

    variant: str
    """How it is written, in a few words."""
    version: str
    """Library and version."""
    parameters: str
    """Ring degree, primes and scale."""
    model_hidden: bool
    """Whether an answer is blinded, so that the key holder does not read weights out of it."""
    rests_on: str
    """What the privacy of the input rests on: an assumption, and who is trusted with what."""
    remark: str
    """What a reader of the figures has to know: a licence, what is not timed; empty where there is nothing."""
    key_bytes: int
    """Public and evaluation keys that the server needs, as the library saves them."""
    note: str
    """What is known to be wrong; printed when the answers are wrong."""

    @property
    def security_bits(self) -> int | None:
        """None where the library does not say."""

    def encrypt(self, x: Floats) -> bytes:
        """The query for one row x (d,)."""

    def evaluate(self, query: bytes) -> bytes:
        """The answer of the server."""

    def decrypt(self, answer: bytes) -> Floats:
        """The logits (K,)."""


def measure(peer: Peer, workload: Workload, seconds: float = 1.0) -> dict[str, Any]:
    """One query a row, each timed: the figures as one row of the report (times in ms, sizes in bytes).

    Rows are asked again, up to MOST_QUERIES, while this has taken less than `seconds`.
    """
    server: list[float] = []
    client: list[float] = []
    logits: list[Floats] = []
    query = answer = b""
    started = perf_counter()
    for x in itertools.islice(itertools.cycle(workload.rows), max(MOST_QUERIES, len(workload.rows))):
        if len(server) >= len(workload.rows) and perf_counter() - started >= seconds:
            break
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
    expected = workload.logits[np.arange(len(logits)) % len(workload.logits)]
    error = float(np.abs(np.array(logits) - expected).max())
    agreement = float((np.argmax(logits, axis=1) == expected.argmax(axis=1)).mean())
    row = {
        "variant": peer.variant,
        "version": peer.version,
        "parameters": peer.parameters,
        "security_bits": peer.security_bits,
        "model_hidden": peer.model_hidden,
        "rests_on": peer.rests_on,
        "remark": peer.remark,
        "queries": len(logits),
        "server_ms": spread(server),
        "client_ms": spread(client),
        "bytes_up": len(query),
        "bytes_down": len(answer),
        "key_bytes": peer.key_bytes,
        "max_logit_error": error,
        "argmax_agreement": agreement,
    }
    if agreement < 1 or not error <= TOLERANCE * float(np.abs(workload.logits).max()):
        row["note"] = peer.note
    return row


def spread(values: list[float]) -> dict[str, Any]:
    """All values, in order, with their median and range."""
    return {"median": median(values), "lowest": min(values), "highest": max(values), "samples": values}


def rows_alone() -> None:
    """From here on standard output has rows alone: what a library prints below Python goes to standard error."""
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def write(row: dict[str, Any]) -> None:
    """One row as one line, at once: what is measured is kept even when a later variant runs out of time."""
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
