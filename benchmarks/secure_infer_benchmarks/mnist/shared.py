"""The workload by secret sharing, its ReLU as it is: a dealer and two parties on loopback, mutual TLS on every link."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from importlib.metadata import version

import numpy as np
from tqdm import tqdm

from secure_infer.errors import ServerUnavailable
from secure_infer.heads import Head
from secure_infer.mpc.program import Answers, Program, Weights
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.mnist.published import SHAPE, WORKLOAD, beside
from secure_infer_benchmarks.mnist.samples import Samples
from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.timed import Floats, TimedQueries, by_client
from secure_infer_client import Client

RELU, SHARED, LABEL = "relu", "relu-shared", "relu-shared-label"
ROWS = {
    RELU: "ours by secret sharing, 784-128-64-10/ReLU, both parties hold the model",
    SHARED: "ours by secret sharing, 784-128-64-10/ReLU, shared model",
    LABEL: "ours by secret sharing, 784-128-64-10/ReLU, shared model, label alone",
}
WARM = 3


class _Asked(TimedQueries):
    """One way of serving the head. Answers are kept, for their accuracy is that of all images together."""

    def __init__(self, served: Served, client: Client) -> None:
        super().__init__(served.head, partial(by_client, client))
        self.name, self.client = served.name, client
        self._found: list[Floats | str] = []

    def ask(self, row: Floats) -> None:
        """The next image, (1, 784)."""
        self._found.append(self.query(row)[0])

    def row(self, samples: Samples) -> Row:
        stats, program = self.stats[-1], self.client.plan
        assert isinstance(program, Program)
        if self.name == LABEL:
            compared = samples.labels(np.array([int(label) for label in self._found]))
        else:
            compared = samples.compared(np.stack(self._found)) | {"error_bound": program.error_bound}
        figures = {"server_ms": figure([one.server_ms for one in self.stats]), "call_ms": figure(self.call_ms)}
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
            _Asked(one, stack.enter_context(parties.client(one.name)))
            for one in served
            if one.name not in parties.rejected
        ]
        # The first queries make connections and masks, and are not counted.
        for _ in range(WARM):
            for one in asked:
                one.answer(samples.rows[:1])
        turns = range(min(images, len(samples.rows)))
        for turn in tqdm(turns, desc="mnist: secret sharing", leave=False, disable=None):
            for one in asked:
                one.ask(samples.rows[turn : turn + 1])
        return [one.row(samples) for one in asked] + missing


def _without(name: str, reason: str) -> Row:
    return {"id": ROWS[name], "workload": WORKLOAD, "shape": SHAPE, "reason": reason}
