"""The workload by secret sharing, its ReLU as it is: a dealer and two parties on loopback, mutual TLS on every link."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from secure_infer.errors import ServerUnavailable
from secure_infer.heads import Head
from secure_infer.mpc.program import Answers, Program, Weights
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.mnist.published import SHAPE, WORKLOAD, beside
from secure_infer_benchmarks.mnist.samples import Samples
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_client import Client

RELU, SHARED, LABEL = "relu", "relu-shared", "relu-shared-label"
ROWS = {
    RELU: "ours by secret sharing, 784-128-64-10/ReLU, both parties hold the model",
    SHARED: "ours by secret sharing, 784-128-64-10/ReLU, shared model",
    LABEL: "ours by secret sharing, 784-128-64-10/ReLU, shared model, label alone",
}
WARM = 3


class _Asked:
    """One way of serving the head, its client, and what came of its queries."""

    def __init__(self, name: str, client: Client) -> None:
        self.name, self.client = name, client
        self._found: list[Any] = []
        self._call: list[float] = []
        self._server: list[float] = []

    def ask(self, row: np.ndarray[Any, Any]) -> None:
        """The next image, (1, 784)."""
        started = perf_counter()
        self._found.append(self.client.decide(row) if self.name == LABEL else self.client.predict(row)[0])
        self._call.append(1e3 * (perf_counter() - started))
        self._server.append(self.client.last_call.stats.server_ms)

    def row(self, samples: Samples) -> Row:
        stats, program = self.client.last_call.stats, self.client.plan
        assert isinstance(program, Program)
        if self.name == LABEL:
            compared = samples.labels(np.array([int(label) for (label,) in self._found[WARM:]]))
        else:
            compared = samples.compared(np.stack(self._found[WARM:])) | {"error_bound": program.error_bound}
        figures = {"server_ms": figure(self._server[WARM:]), "call_ms": figure(self._call[WARM:])}
        counts = compared | {
            "bytes_up": stats.bytes_up,
            "bytes_down": stats.bytes_down,
            "key_bytes": 0,
            "link_bytes": stats.link_bytes,
            "correlation_bytes": stats.correlation_bytes,
            "rounds": stats.link_rounds,
        }
        return {
            "id": ROWS[self.name],
            "workload": WORKLOAD,
            "shape": SHAPE,
            "who": "secure-infer",
            "ours": True,
            "published": False,
            "variant": stats.plan + ", ReLU unmodified",
            "version": version("secure-infer"),
            "parameters": f"{program.fraction} fraction bits",
            "security": {
                "input_private": True,
                "model_private": True,
                "bits": None,
                "smudging_bits": None,
                "rests_on": "that no two of three operators collude"
                + (", and that parties may see the model" if self.name == RELU else ""),
            },
            "figures": figures,
            "counts": counts,
            "ratios": beside(counts, figures["server_ms"]["median"]),
            "note": "another trust model than the published one: two parties and a dealer instead of one server",
        }


def measure(head: Head, samples: Samples, images: int) -> list[Row]:
    """A row for each way of serving the ReLU head, asked in turn."""
    served = [
        Served(RELU, head),
        Served(SHARED, head, Weights.SHARED),
        Served(LABEL, head, Weights.SHARED, Answers.LABEL),
    ]
    with ExitStack() as stack:
        try:
            parties = stack.enter_context(Parties(served))
        except ServerUnavailable as problem:
            return [_without(name, problem.message) for name in ROWS]
        missing = [_without(name, reason) for name, reason in parties.rejected.items()]
        asked = [
            _Asked(one.name, stack.enter_context(parties.client(one.name)))
            for one in served
            if one.name not in parties.rejected
        ]
        # The first queries make connections and masks, and are dropped again.
        turns = [*[0] * WARM, *range(min(images, len(samples.rows)))]
        for turn in tqdm(turns, desc="mnist: secret sharing", leave=False, disable=None):
            for one in asked:
                one.ask(samples.rows[turn : turn + 1])
        return [one.row(samples) for one in asked] + missing


def _without(name: str, reason: str) -> Row:
    return {"id": ROWS[name], "workload": WORKLOAD, "shape": SHAPE, "reason": reason}
