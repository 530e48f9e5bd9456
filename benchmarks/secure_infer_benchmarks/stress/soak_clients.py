"""Client processes of a soak: the real SDK, every answer checked against the head in plaintext."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from time import monotonic, sleep
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import SecureInferError
from secure_infer.heads import Head
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer_benchmarks.stress.soak_servers import CHEAP, FEATURES, HIDDEN, heads
from secure_infer_client import Client, transport

TIMEOUT = 20.0  # seconds that a client gives a call
PAUSE = 0.5  # seconds after an error
GRACE = 10.0  # beyond which a call that neither answered nor failed counts as lost
ROWS = 64


@dataclass
class Tally:
    """What became of one client's calls. errors: by reason; said: the first message of each. faults: exceptions that are none of
    the catalogue. wrong: answers beyond the bound; crossed: those of them that fit another row. worst: error, in bounds.
    calls_ms: of answered calls."""

    kind: str
    asked: int = 0
    answered: int = 0
    records: int = 0
    lost: int = 0
    wrong: int = 0
    crossed: int = 0
    worst: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    calls_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Mission:
    """kind: of `KINDS`. seconds: from when all is imported. pause: between calls, in seconds."""

    kind: str
    targets: dict[str, Any]
    identity: dict[str, Any]
    seconds: float
    seed: int
    pause: float = 0.0


def work(pipe: Pipe, mission: Mission) -> None:
    """Ask until the time is over; the tally goes through the pipe."""
    pipe.send(None)
    pipe.send(Caller(mission).run())
    pipe.close()


class Caller:
    """One client process. A client that breaks is closed, and another made."""

    def __init__(self, mission: Mission) -> None:
        self.mission = mission
        self._name, self._ask = KINDS[mission.kind]
        self.head: Head = heads()[self._name]
        self._random = np.random.default_rng(mission.seed)
        rows = self._random.normal(size=(ROWS, FEATURES))
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.expected = self.head.evaluate(self.rows)
        self.tally = Tally(mission.kind)
        self.client: Client | None = None

    def run(self) -> Tally:
        end = monotonic() + self.mission.seconds
        while monotonic() < end:
            began = monotonic()
            self.tally.asked += 1
            try:
                self._ask(self)
            except SecureInferError as error:
                self.tally.errors[error.reason] += 1
                self.tally.said.setdefault(error.reason, error.message)
                self.leave()
                sleep(PAUSE)  # as whoever is told that nobody is there
            except Exception as fault:  # nothing that a user should ever see
                self.tally.faults[f"{type(fault).__name__}: {fault}"[:200]] += 1
                self.leave()
            else:
                self.tally.answered += 1
                self.tally.calls_ms.append(1e3 * (monotonic() - began))
            self.tally.lost += monotonic() - began > self._patience
            sleep(self.mission.pause)
        self.leave()
        return self.tally

    @property
    def _patience(self) -> float:
        """A call of the SDK is several: the model's facts, keys, the query; each may take its time."""
        return 4 * TIMEOUT + GRACE

    def connected(self) -> Client:
        if self.client is None:
            mission, scheme = self.mission, "mpc" if self.mission.kind == "mpc" else "ckks"
            options = mission.identity if scheme == "ckks" else {}
            target = mission.targets[scheme]
            self.client = Client(target, model=self._name, scheme=scheme, timeout=TIMEOUT, **options)
        return self.client

    def leave(self) -> None:
        if self.client is not None:
            self.client.close()
        self.client = None

    def some(self, count: int) -> NDArray[np.intp]:
        return self._random.integers(0, ROWS, count)

    def predict(self, which: NDArray[np.intp]) -> None:
        """Ask for those rows, and hold the answers to plaintext."""
        client = self.connected()
        found = client.predict(self.rows[which])
        self.check(found, which, client.last_call.stats.error_bound)

    def check(self, found: NDArray[np.float64], which: Sequence[int] | NDArray[np.intp], bound: float) -> None:
        self.tally.records += len(which)
        for answer, row in zip(found, which, strict=True):
            error = float(np.abs(answer - self.expected[row]).max())
            self.tally.worst = max(self.tally.worst, error / bound)
            if not error <= bound:
                self.tally.wrong += 1
                self.tally.crossed += bool((np.abs(self.expected - answer).max(axis=1) <= bound).any())


def _single(caller: Caller) -> None:
    caller.predict(caller.some(1))


def _batch(caller: Caller) -> None:
    """As many rows as the client sends as a batch, where there is a plan for it."""
    plans = caller.connected().batch_plans
    caller.predict(caller.some(plans[0].records if plans else ROWS))


def _keys(caller: Caller) -> None:
    """Another client, whose key is uploaded; then all keys of this identity are deleted, which the client mends."""
    caller.leave()
    caller.predict(caller.some(1))
    with transport.channel(str(caller.mission.targets["ckks"]), token=None, **caller.mission.identity) as channel:
        stub = keys_pb2_grpc.KeyServiceStub(channel)
        try:
            stub.DeleteKeys(keys_pb2.DeleteKeysRequest(all=True), timeout=TIMEOUT)
        except grpc.RpcError as error:
            caller.tally.errors[f"DELETE_{error.code().name}"] += 1
    caller.predict(caller.some(2))


KINDS: dict[str, tuple[str, Callable[[Caller], None]]] = {
    "single": (CHEAP, _single),
    "hidden": (HIDDEN, _single),
    "batch": (CHEAP, _batch),
    "keys": (CHEAP, _keys),
    "mpc": (HIDDEN, _single),
}
