"""CrypTen as published: two parties that compute on shares, and a client outside. Usage: python run.py WORKLOAD.npz [options]

The client splits a row into two shares, sends one to each party and adds the answers; what is timed as `server_ms` is from
sending the shares to holding both answers, over loopback. The parties get correlated randomness by CrypTen's trusted third
party, a third process (TTP), or by its default, party 0 itself (TFP: trusted first party).

The workload may hold `activation`, "square" (also when absent) or "relu". Protections that these figures go without: no
connection is encrypted or authenticated; masks come from generators with 32-bit seeds; with TFP party 0 knows every mask.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import Floats, Workload, measure, write
from peers.parties import Failed, Parties
from peers.wire import MODEL, QUERY, TRIAL

SCALE = 1 << 16
SECURITY_BITS = {"TTP": 32, "TFP": 0}
"""The seed of a generator can be searched for; as first party one need not even search."""
PRIVACY = {
    "TTP": "links in the clear; masks from 32-bit seeds; the third party tells party 0 the other's masks on request",
    "TFP": "links in the clear; masks from 32-bit seeds; party 0 draws all correlated randomness in the clear",
}
RESTS_ON = {
    "TTP": "two parties that do not collude, a third that is trusted, and 32-bit seeds that nobody searches for",
    "TFP": "two parties that do not collude, of which the first is trusted with every mask",
}
SEEN = {"public": "both parties see the weights", "shared": "the parties see shares of the weights"}


def shares(values: Floats) -> list[Any]:
    """Two int64 arrays of the values' shape; their sum modulo 2^64 is round(2^16 values)."""
    words = np.rint(values * SCALE).astype(np.int64)
    mask = np.frombuffer(os.urandom(words.nbytes), np.int64).reshape(words.shape)
    return [mask, words - mask]


def started(provider: str) -> Parties:
    """The two parties, and with TTP the third that they trust; raises Failed."""

    def settings(rank: int, folder: Path) -> dict[str, str]:
        return {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "RENDEZVOUS": f"file://{folder}/rendezvous",
            "DISTRIBUTED_BACKEND": "gloo",
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        }

    count = 3 if provider == "TTP" else 2
    return Parties(
        count, 2, lambda rank, port, folder: (Path(__file__).with_name("party.py"), provider, port), settings
    )


class Stock:
    """The client's side, with a model loaded at the parties; the class axis of answers comes first: (K,) or (K, B)."""

    model_hidden = False  # answers are not re-randomised, so a party's share tells of the weights it was computed with
    key_bytes = 0

    def __init__(self, parties: Parties, workload: Workload, provider: str, weights: str, how: dict[str, str]) -> None:
        self._parties = parties
        activation = f"{how['activation']}, " if len(workload.layers) > 1 else ""
        self.variant = f"{provider}, weights {weights}, {activation}{how['answers']}"
        self.version = f"CrypTen {version('crypten')}, torch {version('torch')}"
        self.parameters = "Z_2^64, 16 fraction bits"
        self.security_bits = SECURITY_BITS[provider]
        self.rests_on = RESTS_ON[provider]
        self.remark = f"{SEEN[weights]}; {PRIVACY[provider]}"
        self.note = "sixteen fraction bits are too few for this head, or a truncation failed"
        arrays = {
            f"{name}{i}": a for i, layer in enumerate(workload.layers, 1) for name, a in zip("Wb", layer, strict=True)
        }
        split = {name: shares(a) if weights == "shared" else [a, a] for name, a in arrays.items()}
        parties.ask(MODEL, [_packed({name: two[i] for name, two in split.items()} | how) for i in (0, 1)])
        trial = self.encrypt(workload.rows[0])
        told = [json.loads(body) for body in parties.ask(TRIAL, _halves(trial))]
        self._scale = int(told[0]["scale"])
        self.rounds, self.link_bytes = ([int(one[name]) for one in told] for name in ("rounds", "bytes"))
        self._outputs = workload.logits.shape[1]

    def encrypt(self, x: Floats) -> bytes:
        return b"".join(share.tobytes() for share in shares(x))

    def evaluate(self, query: bytes) -> bytes:
        return b"".join(self._parties.ask(QUERY, _halves(query)))

    def decrypt(self, answer: bytes) -> Floats:
        first, second = (np.frombuffer(half, np.int64) for half in _halves(answer))
        rows = ((first + second) / self._scale).reshape(-1, self._outputs)
        return np.asarray(rows[0] if len(rows) == 1 else rows.T)


def _packed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def repeated(workload: Workload, count: int, batch: int, label: bool) -> Workload:
    """`count` queries of `batch` rows: rows (count, d) or (count, B, d), expected answers (count, K) or (count, K, B)."""
    take = np.arange(count * batch).reshape(count, batch) % len(workload.rows)
    expected = workload.logits
    if label:
        expected = np.eye(expected.shape[1])[expected.argmax(axis=1)]
    rows, answers = workload.rows[take], expected[take].transpose(0, 2, 1)
    return Workload(workload.layers, rows[:, 0] if batch == 1 else rows, answers[..., 0] if batch == 1 else answers)


def compare(
    parties: Parties, workload: Workload, provider: str, weights: str, how: dict[str, str], options: argparse.Namespace
) -> None:
    """Measure one variant for about `options.seconds`, and write its row.

    Beside the fields of every peer: batch (rows in a query), rounds and link_bytes (of party 0, which talks to the third
    party too, and of party 1, as CrypTen counts them, sent and received), privacy (what is not protected).
    """
    trial = repeated(workload, 3, options.batch, how["answers"] == "label")
    peer = Stock(parties, trial, provider, weights, how)
    started = perf_counter()
    measure(peer, trial, 0.0)
    each = (perf_counter() - started) / len(trial.rows)
    count = max(3, min(options.queries, int(options.seconds / each)))
    row = measure(peer, repeated(workload, count, options.batch, how["answers"] == "label"), 0.0)
    extra = {
        "rounds": peer.rounds,
        "link_bytes": peer.link_bytes,
        "batch": options.batch,
        "weights": weights,
        "privacy": PRIVACY[provider],
    }
    write(row | extra)


def main() -> None:
    """Every provider with every way to hold the weights, one row each; what fails is told after the rest."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("workload", metavar="WORKLOAD.npz")
    parser.add_argument("--providers", nargs="+", choices=("TTP", "TFP"), default=("TTP", "TFP"))
    parser.add_argument("--weights", nargs="+", choices=("public", "shared"), default=("public", "shared"))
    parser.add_argument("--answers", nargs="+", choices=("logits", "label"), default=("logits",))
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="rows in a query")
    parser.add_argument("--queries", type=int, default=30, metavar="N", help="at most so many queries of each kind")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="and about so long")
    options = parser.parse_args()
    workload = Workload.load(options.workload)
    with np.load(options.workload, allow_pickle=False) as file:
        activation = str(file["activation"]) if "activation" in file else "square"
    failures = []
    for provider in options.providers:
        try:
            with started(provider) as parties:
                for weights in options.weights:
                    for answers in options.answers:
                        how = {"activation": activation, "answers": answers}
                        compare(parties, workload, provider, weights, how, options)
        except Failed as error:
            failures.append(f"{provider}: {error}")
    if failures:
        raise SystemExit("; ".join(failures))


if __name__ == "__main__":
    main()
