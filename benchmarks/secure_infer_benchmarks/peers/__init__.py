"""The same heads evaluated by other software: `suite` measures, `environments` runs, `workload` says what is asked.

Each peer lives in `benchmarks/peers/NAME` of the source tree, in an environment of its own; see the README there.
"""

from secure_infer_benchmarks.peers.environments import FIELDS, FOLDER, ONE_THREAD, PEERS, SHARING, SPREAD, Peer, run
from secure_infer_benchmarks.peers.workload import (
    Floats,
    Workload,
    dense,
    squared,
    workloads,
)

__all__ = [
    "FIELDS",
    "FOLDER",
    "ONE_THREAD",
    "PEERS",
    "SHARING",
    "SPREAD",
    "Floats",
    "Peer",
    "Workload",
    "dense",
    "run",
    "squared",
    "workloads",
]
