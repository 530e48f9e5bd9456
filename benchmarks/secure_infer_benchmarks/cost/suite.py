"""What it costs to keep the input, and the model, private: queries of one record beside the same server's plaintext call.

One CKKS server and two parties with their dealer, each a process of its own, mutual TLS 1.3 on every link. Every way to ask
takes its turn in every round, so that what changes on the machine meanwhile hits all alike; the ratio is taken round by
round. Milliseconds are the client's, from a row to its answer, with blinds and correlations made ahead as they are between
the queries of a user. `start` measures first calls, `throughput` servers without a pause.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head, ReLU, Square
from secure_infer_benchmarks.cost.asked import Asked
from secure_infer_benchmarks.cost.ways import CKKS, MPC, PLAINTEXT, Way, described, security
from secure_infer_benchmarks.embeddings import rows_of
from secure_infer_benchmarks.figures import Row, Suite, shape
from secure_infer_benchmarks.memory import resident
from secure_infer_benchmarks.parties import HOST, Parties, Served, credentials
from secure_infer_benchmarks.parties import server as tls_server
from secure_infer_benchmarks.synthetic import hidden_head
from secure_infer_benchmarks.timed import Floats
from secure_infer_client import Client
from secure_infer_client.local_process import LocalProcess
from secure_infer_server.commands import certs

ROWS = 256
PAUSE = 0.03
"""Seconds after a query, in which blinds and correlations are made again and nothing else is asked."""


@dataclass(frozen=True)
class Settings:
    """rounds: in each, every way to ask once. heads: of `heads`, by name."""

    rounds: int = 120
    heads: tuple[str, ...] = ("icd10-chapter-linear", "icd10-chapter", "square-384-64-10", "relu-384-64-10")


QUICK = Settings(rounds=25, heads=("icd10-chapter-linear", "icd10-chapter"))


def heads() -> dict[str, Head]:
    """What is asked about, by name: the packaged heads and synthetic ones with 64 squares or ReLUs."""
    packaged = {name: Head.load(models.path() / f"{name}.head") for name in ("icd10-chapter-linear", "icd10-chapter")}
    between = {"square": Square(), "relu": ReLU()}
    return packaged | {f"{name}-384-64-10": hidden_head(384, 64, 10, layer) for name, layer in between.items()}


def measure(quick: bool) -> Suite:
    """Every head asked in every way."""
    return run(QUICK if quick else Settings())


def run(settings: Settings) -> Suite:
    """The suite with those settings."""
    chosen = {name: head for name, head in heads().items() if name in settings.heads}
    rows = {name: rows_of(head, ROWS) for name, head in chosen.items()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pem = certs.make(folder / "certs", [HOST], "benchmark", days=2)
        # Clients may ask for more privacy than it demands.
        server = stack.enter_context(tls_server(folder / "models", chosen, pem, "--privacy", "input-private"))
        parties = stack.enter_context(Parties([_served(name, head, way) for name, head, way in _pairs(chosen, MPC)]))
        asked = _everyone(stack, server, parties, chosen, rows, pem)
        for one in tqdm(asked.values(), desc="cost: warming up", leave=False, disable=None):
            one.warm_up()
        for key in [key for key, one in asked.items() if _same_plan(asked, key, one)]:
            del asked[key]
        for number in tqdm(range(settings.rounds), desc="cost", leave=False, disable=None):
            for one in asked.values():
                one.ask(number)
                sleep(PAUSE)
        found = [_row(name, way, one, asked[name, PLAINTEXT]) for (name, way), one in asked.items()]
        found += [
            {"id": f"{name}/ckks", "head": name, "scheme": "ckks", "reason": reason}
            for name, reason in server.ready["without_plan"].items()
        ]
        order = list(chosen)
        found.sort(key=lambda row: order.index(row["id"].partition("/")[0]))  # stable: ways stay in turn
        memory = {"server": sum(resident(server.ready["pid"]).values())} | {
            role: sum(resident(pid).values()) for role, pid in parties.pids.items()
        }
    return {
        "rows": found,
        "links": "loopback, mutual TLS 1.3",
        "memory_bytes": memory,
    }


def _everyone(
    stack: ExitStack,
    server: LocalProcess,
    parties: Parties,
    chosen: dict[str, Head],
    rows: dict[str, Floats],
    pem: dict[str, Path],
) -> dict[tuple[str, str], Asked]:
    """By head and way, each with a client of its own that is open until the stack ends."""
    found: dict[tuple[str, str], Asked] = {}
    for name, head in chosen.items():
        plain = stack.enter_context(_client(server, pem, name, CKKS[0]))
        found[name, PLAINTEXT] = Asked(head, rows[name], plain, plaintext=True)
    for name, head, way in _pairs(chosen, CKKS):
        if name not in server.ready["without_plan"]:
            found[name, way.name] = Asked(head, rows[name], stack.enter_context(_client(server, pem, name, way)))
    for name, head, way in _pairs(chosen, MPC):
        client = stack.enter_context(parties.client(_served(name, head, way).name))
        found[name, way.name] = Asked(head, rows[name], client)
    return found


def _pairs(chosen: dict[str, Head], ways: tuple[Way, ...]) -> Iterator[tuple[str, Head, Way]]:
    return ((name, head, way) for name, head in chosen.items() for way in ways)


def _served(name: str, head: Head, way: Way) -> Served:
    return Served.named(name, head, way.weights, way.answers)


def _client(server: LocalProcess, pem: dict[str, Path], model: str, way: Way) -> Client:
    return Client(server.address, model=model, privacy=way.privacy, link=way.link, **credentials(pem))


def _same_plan(asked: dict[tuple[str, str], Asked], key: tuple[str, str], one: Asked) -> bool:
    """Whether a client for few bytes took the plan that it takes anyway: heads whose quickest plan is also the smallest."""
    name, way = key
    return way == CKKS[1].name and one.client.plan.digest == asked[name, CKKS[0].name].client.plan.digest


def _row(name: str, way: str, one: Asked, plain: Asked) -> Row:
    plan = None if one.plaintext else one.client.plan
    return {
        "id": f"{name}/{way}",
        "head": name,
        "shape": shape(one.head),
        "scheme": way.partition(",")[0],
        "way": way,
        "plan": "–" if plan is None else described(plan),
        "security": security(plan),
        "figures": one.figures(plain.call_ms),
        "counts": one.counts(),
    }
