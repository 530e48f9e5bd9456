"""What a new process takes to its first answer: processes of their own, with a key ring that is cold, warm, or none.

Everything counts that a program waits for: imports, the passphrase, the model's description, keys, the call. `processor_ms` is
what of it this process's threads computed until the first answer, which another program's load does not change.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from secure_infer import models
from secure_infer_benchmarks.figures import Suite, figure
from secure_infer_client.local_server import LocalServer

HEADS = ("icd10-chapter-linear", "icd10-chapter")
PASSPHRASE = "a passphrase for measuring"
STEADY = 10

PROGRAM = """
import sys, time
begun = time.perf_counter()
from secure_infer_client import Client, KeyRing
imported = time.perf_counter()
import json
import numpy as np
address, model, ring, passphrase, steady = sys.argv[1:]
x = np.full((1, 384), 384**-0.5)
key_ring = KeyRing(ring, passphrase=passphrase) if ring else None
with Client(address, model=model, key_ring=key_ring) as client:
    opened = time.perf_counter()
    client.predict(x)
    first, processor, stats = time.perf_counter(), time.process_time(), client.last_call.stats
    later = []
    for _ in range(int(steady)):
        started = time.perf_counter()
        client.predict(x)
        later.append(1e3 * (time.perf_counter() - started))
        time.sleep(0.02)  # so that blinds are made again
    print(json.dumps({
        "import_ms": 1e3 * (imported - begun),
        "open_ms": 1e3 * (opened - imported),
        "first_call_ms": 1e3 * (first - opened),
        "in_process_ms": 1e3 * (first - begun),
        "second_call_ms": later[0],
        "steady_call_ms": sorted(later[1:])[len(later) // 2 - 1],
        "processor_ms": 1e3 * processor,
        "key_bytes": stats.key_bytes,
    }))
"""

TIMES = (
    "import_ms",
    "open_ms",
    "first_call_ms",
    "in_process_ms",
    "processor_ms",
    "second_call_ms",
    "steady_call_ms",
)


RINGS = ("none", "cold", "warm")


def measure(quick: bool) -> Suite:
    """By head and ring, processes in turn, so that a slow minute hits all alike."""
    repeats = 3 if quick else 9
    rows = []
    with tempfile.TemporaryDirectory() as directory, LocalServer(models.path()) as server:
        for head in HEADS:
            ring = str(Path(directory) / f"{head}.ring")
            runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in RINGS}
            for _ in tqdm(range(repeats), desc=f"start: {head}", leave=False, disable=None):
                Path(ring).unlink(missing_ok=True)
                for kind in RINGS:
                    runs[kind].append(_process(server.address, head, "" if kind == "none" else ring))
            rows += [
                {
                    "id": f"{head}/ckks, ring {kind}",
                    "head": head,
                    "scheme": "ckks",
                    "ring": kind,
                    "figures": {name: figure([run[name] for run in taken]) for name in TIMES},
                    "counts": {"key_bytes": int(taken[-1]["key_bytes"])},
                }
                for kind, taken in runs.items()
            ]
    return {"rows": rows}


def _process(address: str, head: str, ring: str) -> dict[str, float]:
    command = [sys.executable, "-c", PROGRAM, address, head, ring, PASSPHRASE, str(STEADY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [
        "to the first answer of a new process, ms",
        f"{'':<40}{'import':>8}{'open':>8}{'first':>8}{'in all':>8}{'cpu':>8}{'second':>8}{'steady':>8}{'keys, bytes':>13}",
    ]
    for row in suite["rows"]:
        times = "".join(f"{row['figures'][name]['median']:>8.1f}" for name in TIMES)
        lines.append(f"{row['id']:<40}{times}{row['counts']['key_bytes']:>13,}")
    return "\n".join(lines) + "\n"
