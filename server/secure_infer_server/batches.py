"""Batches: features stream in and are summed up as they come, answers stream out one logit after the other.

A batch holds its sums and never the whole query; `Batches` bounds how many are under way and what they hold together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from secure_infer.ckks.batch.blinding import BatchBlinder
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.batch.planner import Program
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer.ckks.residues import Residues
from secure_infer.errors import CallFailed, MalformedRequest, ResourceExhausted
from secure_infer_server.guard import refuse_secret_streams, refuse_ternary_query
from secure_infer_server.keystore import ClientKeys
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import OfferedBatch

BATCH_SECONDS = 60.0  # that any batch may take
BATCH_RATE = 125_000  # bytes a second (1 Mbit/s) that its messages may take besides
BATCH_ESTIMATES = 4.0  # times its estimated seconds that the work may take besides: others share the processor


@dataclass(frozen=True)
class KeyNotHeld:
    """The only event where the client has to upload its key first."""


@dataclass(frozen=True)
class Progress:
    """How far the batch is, from 0 to 1."""

    done: float


@dataclass(frozen=True)
class Answer:
    """One logit of all records, and how far the batch is then."""

    product: bytes
    done: float


@dataclass
class BatchTimes:
    """Seconds at work, waiting for messages left out. blind: part of `evaluate`. blinds: made for this batch."""

    load: float = 0.0
    evaluate: float = 0.0
    blind: float = 0.0
    blinds: int = 0


Event = KeyNotHeld | Progress | Answer | BatchTimes


class Batches:
    """Which batches may run. places: how many at once. memory: bytes that all of them together may take."""

    def __init__(self, registry: Registry, places: int, memory: int) -> None:
        self._registry = registry
        self.places, self._memory = places, memory
        self._running = self._taken = 0
        self._lock = threading.Lock()

    def offered(self, name: str, model_digest: bytes, plan_digest: bytes, records: int) -> OfferedBatch:
        """The batch plan asked for. Raises UnknownModel, ModelChanged, PlanRefused, MalformedRequest."""
        offered = self._registry.version(name, model_digest).batch(plan_digest)
        if not 1 <= records <= offered.plan.records:
            raise MalformedRequest(f"batch: expected 1 to {offered.plan.records} records, got {records}")
        return offered

    @contextmanager
    def place(self, memory: int) -> Iterator[None]:
        """While entered, one batch of that memory is under way; raises ResourceExhausted when it may not be."""
        with self._lock:
            if self._running >= self.places or self._taken + memory > self._memory:
                raise ResourceExhausted(
                    f"{self._running} batches are under way, as many as this server's places ({self.places}) or memory "
                    f"({self._memory >> 20} MiB) allow; ask again later, or send single queries",
                    again="later",
                )
            self._running += 1
            self._taken += memory
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._taken -= memory


def evaluate_batch(
    program: Program,
    keys: ClientKeys | None,
    messages: Iterator[list[bytes]],
    seconds: float,
    abandoned: Callable[[], bool],
) -> Generator[Event, None, None]:
    """Yields the events of one batch, `BatchTimes` last. messages: lists of ciphertexts, features in order.

    abandoned: true when nobody waits any more; asked after every step of the work. Raises MalformedRequest,
    SecretKeyReceived, and CallFailed when the batch takes longer than `seconds` (see `allowed_seconds`). That is looked at
    after every message and every step: each wait for the client is the caller's to bound.
    """
    plan = program.plan
    times, limit = BatchTimes(), _TimeLimit(seconds)
    public = None if keys is None else keys.public
    blind = None if public is None else _timed(BatchBlinder(plan, public).residues, times)
    switching = () if keys is None else keys.switching.parts
    evaluation = program.evaluation()
    taken = 0
    for message in messages:
        limit.check()
        started = perf_counter()
        if not message or taken + len(message) > plan.features:
            raise MalformedRequest(
                f"batch: expected {plan.features} ciphertexts in messages of at least one, got an empty message or more"
            )
        for data in message:
            before = perf_counter()
            residues = load_feature(plan, data)
            times.load += perf_counter() - before
            evaluation.add(residues)
        taken += len(message)
        times.evaluate += perf_counter() - started
        yield Progress(evaluation.done)
        if taken == plan.features:
            break
    if taken < plan.features or next(messages, None) is not None:
        raise MalformedRequest(f"batch: expected {plan.features} ciphertexts, got {taken} and the stream's end or more")
    times.evaluate -= times.load
    answers = evaluation.answers(blind, switching)
    while True:
        if abandoned():
            raise CallFailed("the call was cancelled or its deadline passed before the batch was evaluated")
        limit.check()
        started = perf_counter()
        try:
            answer = next(answers)
        except StopIteration:
            break
        finally:
            times.evaluate += perf_counter() - started
        yield Progress(evaluation.done) if answer is None else Answer(answer, evaluation.done)
    yield times


def allowed_seconds(offered: OfferedBatch) -> float:
    """What one batch may take from its first feature to its last answer, so that a client that drips gives its place back."""
    plan = offered.plan
    size = plan.features * plan.ciphertext_bytes + plan.products * plan.product_bytes
    return BATCH_SECONDS + size / BATCH_RATE + BATCH_ESTIMATES * offered.seconds


class _TimeLimit:
    """One batch's time, from here on."""

    def __init__(self, seconds: float) -> None:
        self._allowed, self._started = seconds, perf_counter()

    def check(self) -> None:
        if perf_counter() - self._started > self._allowed:
            raise CallFailed(
                f"the batch took longer than the {self._allowed:.0f} s that this server allows for its size; "
                "send single queries, or use a faster link"
            )


def load_feature(plan: BatchPlan, data: bytes) -> Residues:
    """One feature's ciphertext; raises MalformedRequest, or SecretKeyReceived when it looks like a secret key."""
    if len(data) != plan.ciphertext_bytes:
        refuse_secret_streams(data)
    residues = read_ciphertext(plan, data)
    refuse_ternary_query(residues[0], plan.parameters.data_primes)
    return residues


def _timed(blind: Callable[[], Residues], times: BatchTimes) -> Callable[[], Residues]:
    def made() -> Residues:
        started = perf_counter()
        found = blind()
        times.blind += perf_counter() - started
        times.blinds += 1
        return found

    return made
