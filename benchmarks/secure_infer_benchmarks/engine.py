"""The encrypted engine by itself: a server's whole handling of a query, for chosen plans, one thread, no network.

Every row goes through the server's own code, from request bytes to answer bytes, with blinds prepared ahead as the server
prepares them; the client's work is measured beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer.ckks import planner
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import Link
from secure_infer.ckks.planner import Candidate
from secure_infer.ckks.queries import pack_input
from secure_infer.heads import Head, ModelSpec
from secure_infer.heads.network import Network
from secure_infer_client.keys import SecretKey
from secure_infer_server.blinds import BlindPool
from secure_infer_server.dataplane import Dataplane, Times
from secure_infer_server.keys.vault import load_client_keys
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import Offered, ServedModel
from secure_infer_server.settings import Policy

Floats = NDArray[np.float64]
LOGITS = 10_000
LINK = Link.parse("loopback")


@dataclass(frozen=True)
class Case:
    """A head and what is asked of its plan. most_bytes: of a query's ciphertexts; the quickest server within it is taken."""

    name: str
    head: Head
    smudging: int
    error: float | None = None
    most_bytes: int | None = None
    kinds: tuple[str, ...] = ("coefficient", "slots")


def choose(case: Case) -> Candidate:
    """The candidate with the quickest server within the case's bytes."""
    network = Network.of(case.head.layers)
    wanted = planner.demand(network, case.head.contract, error=case.error, smudging=case.smudging)
    tried = planner.explore(network, case.head.contract, wanted, unit_costs(), LINK)
    able = [
        c
        for c in tried.candidates
        if c.kind in case.kinds and (case.most_bytes is None or c.plan.query_bytes <= case.most_bytes)
    ]
    if not able:
        raise planner.refusal(tried.rejected, network, wanted)
    return min(able, key=lambda c: c.cost.server)


class Bench:
    """A server with one model and one plan, and a client's key for it, in this process; blinds come from their own, or, where
    none are made ahead, from this one."""

    def __init__(self, head: Head, candidate: Candidate, *, ahead: bool = True) -> None:
        self.plan = candidate.plan
        digest = bytes.fromhex(self.plan.digest)
        self._offered = Offered(self.plan, candidate.cost.server, candidate.compile)
        policy = Policy(privacy=self.plan.privacy)
        served = ServedModel(ModelSpec.of("model", head), head, policy, {digest: self._offered}, "")
        self._blinds = BlindPool(1 << 28, per_key=max(8, 2 * self.plan.products) if ahead else 0)
        self._dataplane = Dataplane(Registry({"model": served}, {}), self._blinds)
        self._key = SecretKey(self.plan.parameters)
        upload = self._key.upload(self.plan)
        keys, _ = load_client_keys(self.plan, upload.data)
        self._held = upload.digest, keys
        if keys.public is not None and ahead:
            self._blinds.warm(self.plan, upload.digest, keys.public)
        self._rows = self._key.rows(self.plan)

    def __enter__(self) -> Bench:
        self._blinds.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._blinds.close()
        self._key.destroy()

    def encrypted(self, x: Floats) -> list[bytes]:
        """The ciphertexts of a row (d,)."""
        return [self._key.encrypt(p) for p in pack_input(self.plan, x)]

    def answer(self, query: list[bytes]) -> tuple[list[bytes], Times]:
        """The server's part: a query's products, and what they took."""
        evaluation = self._dataplane.begin(self._offered, self._held)
        evaluation.add(query)
        times = evaluation.done()
        return evaluation.answers[0], times

    def logits(self, products: list[bytes]) -> Floats:
        """What an answer says, (K,)."""
        return read_answer(self.plan, self._rows, products)

    def query(self, x: Floats) -> tuple[Floats, dict[str, float]]:
        """Logits (K,) of a row (d,), and milliseconds by stage; waits first until its blinds are ready, where it takes any."""
        digest, held = self._held
        while held.public is not None and self._blinds.level(self.plan, digest) < self.plan.products:
            self._blinds.nudge(self.plan, digest)
            sleep(0.0005)
        self._key.prepare(self.plan.ciphertexts)
        started = perf_counter()
        query = self.encrypted(x)
        encrypted = perf_counter()
        products, times = self.answer(query)
        answered = perf_counter()
        logits = self.logits(products)
        return logits, {
            "server": 1e3 * times.total,
            "load": 1e3 * times.load,
            "evaluate_and_blind": 1e3 * times.evaluate,
            "encrypt": 1e3 * (encrypted - started),
            "read": 1e3 * (perf_counter() - answered),
        }


def run(head: Head, candidate: Candidate, x: Floats, name: str) -> tuple[Floats, list[dict[str, float]]]:
    """Logits (B, K) of rows (B, d), one query each, and their milliseconds by stage."""
    logits, stages = [], []
    with Bench(head, candidate) as bench:
        bench.query(x[0])  # the first one builds what later ones find ready
        for row in tqdm(x, desc=name, leave=False, disable=None):
            found, times = bench.query(row)
            logits.append(found)
            stages.append(times)
    return np.stack(logits), stages
