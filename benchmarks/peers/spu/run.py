"""SecretFlow SPU: parties that compute on shares, and a client outside. Usage: python run.py WORKLOAD.npz

Each party is a process, their links and the client's are loopback. The client splits a row into shares, sends each party
its own and joins the answers; what is timed as `server_ms` is from sending the shares to holding all answers. Three
protocols as SPU makes them by default: SEMI2K (two parties; correlated randomness from its trusted first party), CHEETAH
(two parties, nobody trusted: lattices and oblivious transfer) and ABY3 (three parties, of which two do not collude). The
ring is Z_2^64, links are in the clear, and a model stays loaded between queries.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np
from spu import api, libspu  # type: ignore[import-not-found]
from spu.utils import frontend  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import Floats, Workload, measure, rows_alone, write
from peers.parties import Failed, Parties
from peers.wire import MODEL, QUERY, TRIAL, packed, unpacked

PARTIES = {"SEMI2K": 2, "CHEETAH": 2, "ABY3": 3}
RESTS_ON = {
    "SEMI2K": "two parties that do not collude, of which the first is trusted with all correlated randomness",
    "CHEETAH": "two parties that do not collude, Ring-LWE and oblivious transfer; nobody is trusted",
    "ABY3": "three parties of which no two collude",
}
SEEN = {"public": "all parties see the weights", "shared": "the parties see shares of the weights"}
SECURITY_BITS = {"SEMI2K": 0, "CHEETAH": 128, "ABY3": 128}
"""Of what is computational in it; 0 where one party holds in the clear what would open the input."""


def head(x: Any, *weights: Any) -> Any:
    """y = W1 x + b1, or y = W2 (W1 x + b1)² + b2, in jax."""
    y = jnp.matmul(weights[0], x) + weights[1]
    return jnp.matmul(weights[2], jnp.square(y)) + weights[3] if len(weights) > 2 else y


def bodies(shares: list[Any]) -> list[bytes]:
    """What each party is sent of an array."""
    return [packed([share.meta, *share.share_chunks]) for share in shares]


def started(protocol: str) -> Parties:
    """The parties of a protocol, their addresses free ports of this machine; raises Failed."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(PARTIES[protocol])]
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    program = Path(__file__).with_name("party.py")
    count = PARTIES[protocol]
    return Parties(count, count, lambda rank, port, folder: (program, protocol, rank, port, *addresses))


class Spu:
    """The client's side, with a model loaded at the parties."""

    model_hidden = False  # the client reads the weights of a linear head out of its answers
    key_bytes = 0
    note = "its fraction bits are too few for this head, or a truncation failed"

    def __init__(self, parties: Parties, workload: Workload, protocol: str, weights: str) -> None:
        self._parties = parties
        settings = libspu.RuntimeConfig(protocol=getattr(libspu, protocol), field=libspu.FM64)
        self._io = api.Io(PARTIES[protocol], settings)
        arrays = [a.astype(np.float32) for layer in workload.layers for a in layer]
        names = [f"w{i}" for i in range(len(arrays))]
        secret, public = libspu.Visibility.VIS_SECRET, libspu.Visibility.VIS_PUBLIC
        seen = secret if weights == "shared" else public
        x = workload.rows[0].astype(np.float32)
        visible = [secret] + [seen] * len(arrays)
        program, _ = frontend.compile(
            frontend.Kind.JAX, head, (x, *arrays), {}, ["x", *names], visible, lambda found: ["y"] * len(found)
        )
        model: list[list[bytes]] = [[program.SerializeToString()] for _ in range(PARTIES[protocol])]
        for name, array in zip(names, arrays, strict=True):
            for parts, body in zip(model, bodies(self._io.make_shares(array, seen)), strict=True):
                parts += [name.encode(), body]
        parties.ask(MODEL, [packed(parts) for parts in model])
        trial = unpacked(self.encrypt(workload.rows[0]))
        for _ in range(2):  # the first sets up what later ones find ready
            parties.ask(TRIAL, trial)
            self.evaluate(packed(trial))
        told = re.findall(r"total send bytes (\d+)", parties.told())[-2 * PARTIES[protocol] :]
        sent = [int(number) for number in told]
        self.link_bytes = sent[PARTIES[protocol] :]
        self.variant = f"{protocol}, weights {weights}"
        self.version = f"SPU {version('spu')}, jax {jax.__version__}"
        self.parameters = f"{PARTIES[protocol]} parties, Z_2^64, 18 fraction bits"
        self.security_bits = SECURITY_BITS[protocol]
        self.rests_on = RESTS_ON[protocol]
        self.remark = f"{SEEN[weights]}; links in the clear; real processes on loopback"
        if protocol == "CHEETAH":
            first = sum(sent[: PARTIES[protocol]])
            self.remark += f"; the first query's {first:,} bytes between the parties make what later ones use up"

    def encrypt(self, x: Floats) -> bytes:
        return packed(bodies(self._io.make_shares(x.astype(np.float32), libspu.Visibility.VIS_SECRET)))

    def evaluate(self, query: bytes) -> bytes:
        return packed([bytes(part) for part in self._parties.ask(QUERY, unpacked(query))])

    def decrypt(self, answer: bytes) -> Floats:
        shares = []
        for body in unpacked(answer):
            share = libspu.Share()
            share.meta, *rest = unpacked(body)
            share.share_chunks = rest
            shares.append(share)
        return np.asarray(self._io.reconstruct(shares), dtype=np.float64)


def main(path: str) -> None:
    """Every protocol with every way to hold the weights, one row each; what fails is told after the rest."""
    rows_alone()
    workload = Workload.load(path)
    failures = []
    for protocol in PARTIES:
        try:
            with started(protocol) as parties:
                for weights in ("public", "shared"):
                    peer = Spu(parties, workload, protocol, weights)
                    write(measure(peer, workload) | {"weights": weights, "link_bytes": sum(peer.link_bytes)})
        except Failed as error:
            failures.append(f"{protocol}: {error}")
    if failures:
        raise SystemExit("; ".join(failures))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(sys.argv[1])
