"""`secure-infer stress hostile`: hostile inputs, as many as asked for, on everything of real servers that takes bytes.

Servers run as they would in production (and once more without TLS, where no handshake keeps bytes away). Every input is a
function of the seed, its index and what the servers offer. Each must be refused by the catalogue or answered as it should be,
in time; no process may end, honest clients' answers must be right throughout, and nothing of the inputs may be found in
answers, logs or records afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from secure_infer.errors import SecureInferError
from secure_infer_benchmarks.memory import resident
from secure_infer_benchmarks.stress import hostile_ckks, hostile_corpus, hostile_leader, hostile_report, hostile_run
from secure_infer_benchmarks.stress.hostile_checks import searched
from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_inputs import PACKAGE, Input
from secure_infer_benchmarks.stress.hostile_layout import STRANGER, Served
from secure_infer_benchmarks.stress.hostile_report import Memory, Report
from secure_infer_benchmarks.stress.hostile_run import Found
from secure_infer_benchmarks.stress.hostile_send import Sender
from secure_infer_benchmarks.stress.hostile_servers import Servers
from secure_infer_benchmarks.stress.wires import channel

LARGE = 100_000
"""Bytes of a key for hidden layers, of which one is uploaded ahead: a worker checks it."""

APART = ("keys", "pki", "models", "party-0", "party-1")
"""What clients may have kept there, or the operator did: not searched."""


def run(arguments: list[str]) -> int:
    """Exit status 0 when nothing was found, else 1."""
    options = _options(arguments)
    indices = range(options.inputs) if options.only is None else [options.only]
    report = attack(indices, options.seed, options.failures)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(asdict(report), indent=1) + "\n")
        options.out.with_suffix(".md").write_text(hostile_report.markdown(report))
    sys.stdout.write(json.dumps(asdict(report)) + "\n" if options.json else hostile_report.text(report))
    return 0 if report.sound else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("secure-infer stress hostile", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="how many (a million)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all inputs (1)")
    parser.add_argument("--only", type=int, metavar="INDEX", help="this one alone")
    parser.add_argument(
        "--failures",
        type=Path,
        default=Path("hostile-failures"),
        metavar="DIR",
        help="failing inputs are written there",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="write the report there, and a summary beside it as .md"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return parser.parse_args(arguments)


def attack(indices: Sequence[int], seed: int, failures: Path) -> Report:
    """Start servers, send, and look at what is left of them."""
    canary = b"canary-" + base64.b32encode(Random(seed).randbytes(20)).lower()
    with tempfile.TemporaryDirectory() as folder, hostile_leader.listening() as peer:
        host, port = peer.getsockname()
        with Servers(Path(folder), f"{host}:{port}") as servers:
            served = servers.served
            corpus = hostile_corpus.build(served, seed, canary)
            _prepare(served, corpus)
            sizes, processes = [_memory(served)], {name: set(_pids(served, name)) for name in served.pids}
            found = hostile_run.run(served, corpus, seed, indices, peer, lambda: sizes.append(_memory(served)))
            sizes.append(_memory(served))
            _write_failures(failures, seed, found)
            deaths = [name for name, alive in servers.alive().items() if not alive]
            deaths += [f"{name} lives, and does not answer" for name in served.pids if not _serving(served, name)]
            restarts = sum(
                len(processes[name] - set(_pids(served, name))) for name in served.pids if name not in deaths
            )
            memory = {name: Memory(*(size[name] for size in (sizes[0], sizes[1], sizes[-1]))) for name in served.pids}
        left = searched(Path(folder), APART, canary)
    return hostile_report.of(found, seed, deaths, restarts, memory, left)


def _prepare(served: Served, corpus: Corpus) -> None:
    """The keys that hostile queries name are there, and what is compiled or started at first use is."""
    large = [key for key in corpus.keys if len(key.data) > LARGE]
    for where in ("ckks", "open"):
        for key in [key for key in corpus.keys if key not in large[1:]]:
            _told(
                served,
                corpus,
                Input("", where, f"{PACKAGE}KeyService/UploadKeys", hostile_ckks.upload(key, key.data)),
            )
        for stream in corpus.streams["InferenceService/Infer"][:1]:
            _told(served, corpus, Input("", where, f"{PACKAGE}InferenceService/Infer", stream))
    time.sleep(1.0)


def _told(served: Served, corpus: Corpus, made: Input) -> None:
    async def send() -> tuple[str, str]:
        sender = Sender(served, corpus.material.canary)
        try:
            return await sender.send(made)
        finally:
            await sender.close()

    outcome, problem = asyncio.run(send())
    if outcome != "ok":
        raise SecureInferError(f"the servers do not answer before anything hostile was sent: {outcome} {problem}")


def _serving(served: Served, name: str) -> bool:
    """Whether its health is SERVING; to a stranger, as to anybody."""
    with channel(served, name, STRANGER) as opened:
        try:
            asked = health_pb2.HealthCheckRequest()
            status = health_pb2_grpc.HealthStub(opened).Check(asked, timeout=30, wait_for_ready=True).status
        except grpc.RpcError:
            return False
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


def _memory(served: Served) -> dict[str, int]:
    return {name: sum(resident(pid).values()) for name, pid in served.pids.items()}


def _pids(served: Served, name: str) -> list[int]:
    return list(resident(served.pids[name]))


def _write_failures(folder: Path, seed: int, found: Found) -> None:
    if found.findings:
        folder.mkdir(parents=True, exist_ok=True)
    for finding in found.findings:
        entry: dict[str, Any] = asdict(finding.made) | {
            "seed": seed,
            "index": finding.index,
            "problem": finding.problem,
        }
        entry["messages"] = [base64.b64encode(message).decode() for message in finding.made.messages]
        entry["metadata"] = [[name, repr(value)] for name, value in finding.made.metadata]
        (folder / f"{seed}-{finding.index}.json").write_text(json.dumps(entry, indent=1) + "\n")
