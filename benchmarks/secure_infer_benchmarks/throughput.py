"""What a server answers a second: requests encrypted beforehand and sent again and again, with one worker and with several.

The client does next to nothing: bytes out, bytes in, a few answers read to see that they are right. Servers take turns
in short slices, so that drift of the machine hits all alike.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import grpc
import numpy as np
from tqdm import tqdm

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import InternalFault
from secure_infer.heads import Head
from secure_infer.v1 import inference_pb2, keys_pb2, keys_pb2_grpc
from secure_infer_benchmarks.figures import Suite, figure, ratio
from secure_infer_benchmarks.synthetic import inputs, square_head
from secure_infer_client import Client
from secure_infer_client.keys import SecretKey
from secure_infer_client.local_server import LocalServer

INFER = "/secure_infer.v1.InferenceService/Infer"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Settings:
    """workers: of each server. callers: requests under way at once. seconds: of a slice. rounds: slices of each server.
    requests: encrypted beforehand, each with its key. sessions: keys, as of so many clients."""

    workers: tuple[int, ...] = (1, 2)
    callers: int = 8
    seconds: float = 3.0
    rounds: int = 5
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
        times: list[float] = []
        started = perf_counter()

        def call(first: int) -> None:
            number = first
            while (before := perf_counter()) - started < seconds:
                self.infer(self.requests[number % len(self.requests)], timeout=60)
                times.append(1e3 * (perf_counter() - before))
                number += callers

        threads = [threading.Thread(target=call, args=(first,)) for first in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(times) / (perf_counter() - started), times

    def close(self) -> None:
        self._channel.close()
        for key in self._keys:
            key.destroy()


QUICK = Settings(seconds=1.0, rounds=2)


def measure(quick: bool) -> Suite:
    """The head with a hidden layer at one worker and at two."""
    return run(QUICK if quick else Settings(), square_head(384, 64, 10))


def run(settings: Settings, head: Head) -> Suite:
    """Rates by number of workers, and their ratio to the first's, slice by slice."""
    rates: dict[int, list[float]] = {count: [] for count in settings.workers}
    calls: dict[int, list[float]] = {count: [] for count in settings.workers}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        head.save(Path(directory) / "hidden.head")
        replays: dict[int, Replay] = {}
        for count in settings.workers:
            server = stack.enter_context(LocalServer(Path(directory), "--workers", str(count)))
            replays[count] = Replay(server.address, "hidden", head, settings)
            stack.callback(replays[count].close)
        errors = {count: replay.check() for count, replay in replays.items()}
        for _ in tqdm(range(settings.rounds), desc="throughput", leave=False, disable=None):
            for count, replay in replays.items():
                rate, times = replay.rate(settings.callers, settings.seconds)
                rates[count].append(rate)
                calls[count] += times
        plan = replays[settings.workers[0]].plan
    return {
        "callers": settings.callers,
        "sessions": settings.sessions,
        "rows": [
            {
                "id": f"{count} workers",
                "scheme": "ckks",
                "plan": f"{plan.kind} {plan.parameters}",
                "workers": count,
                "figures": {
                    "ratio_to_one": ratio(rates[count], rates[settings.workers[0]]) | {"better": "higher"},
                    "answers_a_second": figure(rates[count], unit="/s", better="higher"),
                    "call_ms": figure(calls[count]),
                },
                "counts": {
                    "bytes_up": plan.query_bytes,
                    "bytes_down": plan.answer_bytes,
                    "max_logit_error": errors[count],
                    "error_bound": plan.error_bound,
                },
            }
            for count in settings.workers
        ],
    }


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [f"{suite['callers']} calls at once, of {suite['sessions']} clients"]
    for row in suite["rows"]:
        found = {name: one["median"] for name, one in row["figures"].items()}
        lines.append(
            f"  {row['id']:<10} {found['ratio_to_one']:.2f} x  {found['answers_a_second']:>7.1f} answers a second, "
            f"{found['call_ms']:.1f} ms a call; {row['plan']}"
        )
    return "\n".join(lines) + "\n"
