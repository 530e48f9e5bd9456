"""The comparison: this project's rows, then each peer's, of the same heads and the same inputs.

Two comparisons a head. With homomorphic encryption, `server_ms` is the server's handling of a query from its bytes to the
answer's, `client_ms` encrypting and decrypting; no network. With secret sharing, named "..., secret sharing", `server_ms`
is from sending shares to holding all answers as the client sees it on loopback, `client_ms` splitting and joining, and
`call_ms` the sum of the two. Peers run one after the other, one process and one thread each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from secure_infer_benchmarks.figures import Row, Suite, figure
from secure_infer_benchmarks.peers import ours
from secure_infer_benchmarks.peers.ahead import compared
from secure_infer_benchmarks.peers.environments import DEADLINE_SECONDS, PEERS, SECRET_SHARING, Peer, run
from secure_infer_benchmarks.peers.workload import Workload, workloads

SHARING = ", secret sharing"
QUERIES = {True: 8, False: 40}
"""Of each row of ours, by `quick`."""
QUICK_SECONDS = 20.0
"""A peer's deadline on one workload in the quick variant: the slowest take minutes."""
Ours = Callable[[Sequence[Workload], int], dict[str, list[Row]]]


def measure(quick: bool) -> Suite:
    """Every head; quick: one row each, and no peer for longer than QUICK_SECONDS."""
    return compare(workloads(quick), QUERIES[quick], seconds=QUICK_SECONDS if quick else DEADLINE_SECONDS)


def encrypted(cases: Sequence[Workload], queries: int) -> dict[str, list[Row]]:
    """This project's rows of homomorphic encryption, by workload."""
    return {case.name: ours.encrypted(case, queries) for case in cases}


def compare(
    cases: Sequence[Workload],
    queries: int,
    *,
    peers: Iterable[Peer] = PEERS,
    sharing: Iterable[Peer] = SECRET_SHARING,
    first: tuple[Ours, Ours] = (encrypted, ours.shared),
    seconds: float = DEADLINE_SECONDS,
) -> Suite:
    """The suite for any workloads and peers. first: makes our rows, with encryption and with secret sharing.

    seconds: the deadline of one peer on one workload.
    """
    parts = [("", tuple(peers), first[0](cases, queries)), (SHARING, tuple(sharing), first[1](cases, queries))]
    rows: list[Row] = []
    total = len(cases) * sum(len(some) for _, some, _ in parts)
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=total, desc="peers", leave=False, disable=None) as progress,
    ):
        for case in cases:
            file = Path(folder) / f"{case.name}.npz"
            case.save(file)
            for suffix, some, own in parts:
                head = {"workload": case.name + suffix, "shape": case.shape}
                rows += [head | row | {"id": f"{case.name}/{row['id']}", "ours": True} for row in own[case.name]]
                for peer in some:
                    progress.set_postfix_str(f"{peer.name}, {case.name}")
                    rows += [head | row | {"id": f"{case.name}/{row['id']}"} for row in theirs(peer, file, seconds)]
                    progress.update()
    return {"rows": rows, "threads": 1, "ahead": compared(rows)}


def theirs(peer: Peer, file: Path, seconds: float) -> list[Row]:
    """A peer's rows for a workload file, in the report's form."""
    return [_row(peer, found, number) for number, found in enumerate(run(peer, file, seconds))]


def _row(peer: Peer, found: Row, number: int) -> Row:
    row: Row = {"who": peer.title or peer.name, "ours": False}
    if "reason" in found:
        return row | {"id": f"{peer.name}/{number}", "reason": found["reason"]}
    row |= {
        "id": f"{peer.name}/{found['variant']}",
        **{name: found[name] for name in ("variant", "version", "parameters")},
    }
    wrong = f"WRONG ANSWERS: {found['note']}" if "note" in found else ""
    weights = found.get("weights")
    server, client = (found[name]["samples"] for name in ("server_ms", "client_ms"))
    figures = {"server_ms": figure(server), "client_ms": figure(client)}
    if weights is not None:
        row["weights"] = weights
        figures["call_ms"] = figure([a + b for a, b in zip(server, client, strict=True)])
    counts = {name: found[name] for name in ("bytes_up", "bytes_down", "key_bytes", "max_logit_error", "queries")}
    if isinstance(found.get("link_bytes"), int):
        counts["link_bytes"] = found["link_bytes"]
    return row | {
        "security": {
            "input_private": found["security_bits"] != 0,
            "model_private": found["model_hidden"],
            "model_hidden_from": "each party" if weights == "shared" else "nobody",
            "bits": found["security_bits"],
            "smudging_bits": None,
            "rests_on": found["rests_on"],
        },
        "note": "; ".join(part for part in (wrong, found["remark"]) if part),
        "figures": figures,
        "counts": counts | {"agreement": found["argmax_agreement"]},
    }
