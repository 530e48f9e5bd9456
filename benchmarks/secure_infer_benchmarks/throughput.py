"""What a server answers a second: requests encrypted beforehand and sent again and again, with one worker and with several.

The client does next to nothing: bytes out, bytes in, a few answers read to see that they are right. Servers take turns
in short slices, so that drift of the machine hits all alike; so does the engine alone, in as many processes as there are
workers, which is what the machine gives at best: client and server share it with the workers.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import grpc
import numpy as np
from tqdm import tqdm

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import InternalFault
from secure_infer.heads import Head
from secure_infer.v1 import inference_pb2, keys_pb2, keys_pb2_grpc
from secure_infer_benchmarks.engines import Engines
from secure_infer_benchmarks.figures import Figure, Row, Suite, figure, ratio
from secure_infer_benchmarks.rate import rate
from secure_infer_benchmarks.synthetic import inputs, square_head
from secure_infer_client import Client
from secure_infer_client.keys import SecretKey
from secure_infer_client.local_server import LocalServer

INFER = "/secure_infer.v1.InferenceService/Infer"
CHUNK = 1 << 20
UNPREPARED = ("--blinds-per-key", "0")
"""A server that is busy all the time has no time to make blinds ahead; a stock of them would flatter the first seconds, those of
one worker more than those of two."""


@dataclass(frozen=True)
class Settings:
    """workers: of each server. callers: requests under way at once. seconds: of a slice. rounds: slices of each server.
    requests: encrypted beforehand, each with its key. sessions: keys, as of so many clients."""

    workers: tuple[int, ...] = (1, 2)
    callers: int = 8
    seconds: float = 1.5
    rounds: int = 30
    requests: int = 24
    sessions: int = 4


class Replay:
    """One server and requests for it, encrypted beforehand."""

    def __init__(self, address: str, name: str, head: Head, settings: Settings) -> None:
        with Client(address, model=name) as client:
            self._spec, plan = client.spec, client.plan
        if not isinstance(plan, QueryPlan):
            raise InternalFault("throughput: expected a plan for single queries")
        self.plan: QueryPlan = plan
        self._channel = grpc.insecure_channel(address)
        self.infer = self._channel.unary_unary(INFER)
        self._x = inputs(head.features, settings.requests)
        self._expected = head.evaluate(self._x)
        self._keys = [SecretKey(plan.parameters) for _ in range(settings.sessions)]
        for key in self._keys:
            self._upload(key)
        self.requests = [self._request(number) for number in range(settings.requests)]

    def _upload(self, key: SecretKey) -> None:
        data = key.upload(self.plan)
        header = keys_pb2.KeyHeader(
            model=self._spec.name,
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=data.digest,
            size=len(data.data),
        )
        chunks = [data.data[start : start + CHUNK] for start in range(0, len(data.data), CHUNK)]
        messages = [keys_pb2.UploadKeysRequest(header=None if i else header, chunk=c) for i, c in enumerate(chunks)]
        keys_pb2_grpc.KeyServiceStub(self._channel).UploadKeys(iter(messages), timeout=60)

    def _key(self, number: int) -> SecretKey:
        return self._keys[number % len(self._keys)]

    def _request(self, number: int) -> bytes:
        key = self._key(number)
        ciphertexts = [key.encrypt(polynomial) for polynomial in pack_input(self.plan, self._x[number])]
        return inference_pb2.InferRequest(
            model=self._spec.name,
            model_digest=bytes.fromhex(self._spec.digest),
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=key.upload(self.plan).digest,
            request_id=secrets.token_bytes(16),
            queries=[inference_pb2.Query(ciphertexts=ciphertexts)],
        ).SerializeToString()

    def check(self) -> float:
        """The largest error of a logit over all requests."""
        found = (self.infer(request, timeout=60) for request in self.requests)
        return max(self.error(number, answer) for number, answer in enumerate(found))

    def error(self, number: int, answer: bytes) -> float:
        """The largest error of a logit in an answer to the request of that number, counted on beyond the last."""
        number %= len(self.requests)
        (answered,) = inference_pb2.InferResponse.FromString(answer).answers.answers
        found = read_answer(self.plan, self._key(number).rows(self.plan), answered.products)
        return float(np.abs(found - self._expected[number]).max())

    def rate(self, callers: int, seconds: float) -> tuple[float, list[float]]:
        """Answers a second with so many requests under way, and milliseconds of each call."""

        def caller(first: int) -> Callable[[], None]:
            requests = islice(cycle(self.requests), first, None, callers)
            return lambda: self.infer(next(requests), timeout=60)

        return rate([caller(first) for first in range(callers)], seconds)

    def close(self) -> None:
        self._channel.close()
        for key in self._keys:
            key.destroy()


QUICK = Settings(seconds=0.5, rounds=2)


def measure(quick: bool) -> Suite:
    """The head with a hidden layer at one worker and at two."""
    return run(QUICK if quick else Settings(), square_head(384, 64, 10))


def run(settings: Settings, head: Head) -> Suite:
    """Rates by number of workers, and their ratio to the first's, slice by slice; the same of the engine alone."""
    first, *_ = settings.workers
    served, alone = _Rates(settings.workers), _Rates(settings.workers)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        head.save(Path(directory) / "hidden.head")
        replays: dict[int, Replay] = {}
        for count in settings.workers:
            server = stack.enter_context(LocalServer(Path(directory), "--workers", str(count), *UNPREPARED))
            replays[count] = Replay(server.address, "hidden", head, settings)
            stack.callback(replays[count].close)
        plan = replays[first].plan
        engines = stack.enter_context(Engines(head, plan.digest, max(settings.workers)))
        errors = {count: replay.check() for count, replay in replays.items()}
        for _ in tqdm(range(settings.rounds), desc="throughput", leave=False, disable=None):
            for count, replay in replays.items():
                served.add(count, *replay.rate(settings.callers, settings.seconds))
                alone.add(count, engines.rate(count, settings.seconds))
    shared: Row = {"scheme": "ckks", "plan": f"{plan.kind} {plan.parameters}"}
    exact = {"error_bound": plan.error_bound}
    sent = {"bytes_up": plan.query_bytes, "bytes_down": plan.answer_bytes}
    rows: list[Row] = [
        {
            "id": f"{count} worker" + "s" * (count > 1),
            **shared,
            "workers": count,
            "figures": served.figures(count),
            "counts": sent | {"max_logit_error": errors[count]} | exact,
        }
        for count in settings.workers
    ]
    rows += [
        {
            "id": f"engine alone, {count} at once",
            **shared,
            "figures": alone.figures(count),
            "counts": {"max_logit_error": engines.error} | exact,
        }
        for count in settings.workers
    ]
    return {"callers": settings.callers, "sessions": settings.sessions, "rows": rows}


class _Rates:
    """Of each count, slice by slice."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._first = counts[0]
        self._rates: dict[int, list[float]] = {count: [] for count in counts}
        self._calls: dict[int, list[float]] = {count: [] for count in counts}

    def add(self, count: int, rate: float, calls: Sequence[float] = ()) -> None:
        """A slice: answers a second, and milliseconds of each call where there were calls."""
        self._rates[count].append(rate)
        self._calls[count] += calls

    def figures(self, count: int) -> dict[str, Figure]:
        """Of a row."""
        rates, calls = self._rates[count], self._calls[count]
        return {
            "ratio_to_one": ratio(rates, self._rates[self._first]) | {"better": "higher"},
            "answers_a_second": figure(rates, unit="/s", better="higher"),
        } | ({"call_ms": figure(calls)} if calls else {})


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [f"{suite['callers']} calls at once, of {suite['sessions']} clients; {suite['rows'][0]['plan']}"]
    for row in suite["rows"]:
        found = {name: one["median"] for name, one in row["figures"].items()}
        call = f", {found['call_ms']:.1f} ms a call" if "call_ms" in found else ""
        lines.append(
            f"  {row['id']:<24} {found['ratio_to_one']:.2f} x  {found['answers_a_second']:>7.1f} answers a second{call}"
        )
    return "\n".join(lines) + "\n"
