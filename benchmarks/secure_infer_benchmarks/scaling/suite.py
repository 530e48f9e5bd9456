"""How time, bytes and memory grow, beside the planner's predictions: features, hidden units, classes, records, clients.

One dimension at a time, around a synthetic head 384 -> 64 -> 10 with squares; everything on loopback.

    d, h, K    heads that differ in one dimension, one record a query. CKKS: the server's handling in this process, one
               thread (`engine`), its blinds made by another; MPC: a dealer and two parties as processes
    batch      records of one call, through a server process, divided as the client divides them; through two parties
    clients    who ask all the time: CKKS requests encrypted beforehand (`throughput`), so that the server alone is busy;
               MPC by as many threads of this process
    sessions   memory of a server's processes, and of both parties', for one more client that uploaded its keys and asked

The planner predicts `predicts`, a figure of the row: a server's time under CKKS, a party's computing under MPC, which counts
neither waiting for the other party nor gRPC. predicted_call_ms: the whole call, as `secure-infer plan` prints it, on loopback.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.scaling import ckks, clients, shapes, shared
from secure_infer_benchmarks.scaling import table as tables
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer

table = tables.table


@dataclass(frozen=True)
class Settings:
    """shapes: d, h and K. queries: of each shape. records: of a call, which is repeated `calls` times. clients: at once, for
    `slices` times `seconds`. sessions: opened to see what one takes."""

    shapes: shapes.Shapes = shapes.FULL
    queries: int = 40
    records: tuple[int, ...] = (1, 16, 256, 2048, 8192)
    calls: int = 3
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)
    slices: int = 3
    seconds: float = 1.5
    sessions: int = 8


QUICK = Settings(
    shapes.Shapes(d=(384, 96), h=(64,), k=(10,)),
    queries=6,
    records=(1, 16),
    calls=2,
    clients=(1, 4),
    slices=1,
    seconds=0.5,
    sessions=2,
)


def measure(quick: bool) -> Suite:
    """Every axis under both schemes."""
    return run(QUICK if quick else Settings())


def run(settings: Settings) -> Suite:
    """The suite with those settings."""
    rows = ckks.shapes(settings.shapes, settings.queries)
    with tempfile.TemporaryDirectory() as folder:
        rows += _server(settings, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        rows += _parties(settings, Path(folder))
    return {
        "rows": rows,
        "base": shapes.words(shapes.BASE),
        "links": "loopback, without TLS",
        "load_average_after": round(os.getloadavg()[0], 2),
    }


def _server(settings: Settings, directory: Path) -> list[Row]:
    """Rows of one server process; its memory is read before it is busy, when nothing is free to be used again."""
    shapes.save(directory, [shapes.BASE])
    with LocalServer(directory) as server:
        rows = clients.server_sessions(server, settings.sessions)
        rows += clients.ckks(server, settings.clients, settings.slices, settings.seconds)
        return rows + ckks.batches(server, settings.records, settings.calls)


def _parties(settings: Settings, directory: Path) -> list[Row]:
    """Rows of two parties and their dealer."""
    shapes.save(directory, dict.fromkeys([*settings.shapes.all(), shapes.BASE]))
    with LocalParties(directory) as parties:
        rows = clients.party_sessions(parties, settings.sessions)
        rows += shared.measure(parties, settings.shapes, settings.queries, settings.records, settings.calls)
        return rows + clients.mpc(parties, settings.clients, settings.slices, settings.seconds)
