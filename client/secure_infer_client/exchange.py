"""Queries for answers at one server: encrypted, asked, read; and the keys that the server needs for it."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.plan import Plan, QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import AnswerRefused, CallFailed, InternalFault, InvalidInput, UnsupportedHead
from secure_infer.heads import ModelSpec
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2_grpc
from secure_infer_client import retries
from secure_infer_client.batches import BatchAnswers, Progress, infer_batch
from secure_infer_client.choice import LONGEST, Batch, Query
from secure_infer_client.costs import Costs
from secure_infer_client.heldkeys import HeldKeys
from secure_infer_client.keyring import Entry
from secure_infer_client.keys import SecretKey
from secure_infer_client.uploads import upload_key

UPLOADS = 3  # of a key that the server says, call after call, that it does not hold
PATIENCE = 4.0  # a batch may take so many times its estimate, beside the timeout of every call

Answered = TypeVar("Answered")


@dataclass(frozen=True)
class Encrypted:
    """Queries that were encrypted and not answered. key: what reads the answer."""

    plan: QueryPlan
    key: SecretKey = field(repr=False)
    request: inference_pb2.InferRequest = field(repr=False)


class Exchange(ABC):
    """The part of a session that has keys. Not thread-safe.

    entry: what is kept of earlier processes. timeout: seconds, of every call.
    """

    def __init__(self, channel: grpc.Channel, target: str, model: str, timeout: float, entry: Entry) -> None:
        self._keys = keys_pb2_grpc.KeyServiceStub(channel)
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._target, self._model, self._timeout = target, model, timeout
        self._entry = entry
        self._secrets = HeldKeys(entry)
        self._query: Query | None = None
        self._batches: list[Batch] = []

    @property
    @abstractmethod
    def spec(self) -> ModelSpec:
        """The pinned model."""

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """The plan for single queries, or else for batches."""

    def _require_going(self) -> None:
        if self._entry.state.refusals > 1:
            raise AnswerRefused(
                f"this client stopped: two answers failed their checks. {self._entry.after_refusals('server')}"
            )

    # Queries.

    def _exchange(self, rows: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
        """Logits of rows that fit one call of single queries."""
        if self._query is None:
            raise InternalFault("session: expected a plan for single queries")
        plan = self._query.plan
        key = self._secrets.key_for(plan)
        started = perf_counter()
        request = self._request(plan, key, rows)
        costs.encrypt += perf_counter() - started

        def infer(key_digest: bytes) -> inference_pb2.InferResponse | None:
            request.key_digest = key_digest
            response = self._infer(request, costs)
            return None if response.WhichOneof("result") == "unknown_key" else response

        response = self._with_key(key, plan, costs, infer)
        started = perf_counter()
        logits = self._read(plan, request, response, key)
        costs.decrypt += perf_counter() - started
        # The next query's masks, in the time until it is asked. Not while waiting for this answer: SEAL holds the
        # interpreter lock, which the answer needs when it comes.
        self._secrets.prepare(key, plan.ciphertexts)
        return logits

    def _request(self, plan: QueryPlan, key: SecretKey, rows: NDArray[np.float64]) -> inference_pb2.InferRequest:
        """The rows, encrypted."""
        spec = self.spec
        queries = [
            inference_pb2.Query(ciphertexts=[key.encrypt(p) for p in pack_input(plan, row)]) for row in spec.carry(rows)
        ]
        return inference_pb2.InferRequest(
            model=self._model,
            model_digest=bytes.fromhex(spec.digest),
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=self._secrets.digest(plan, key),
            request_id=secrets.token_bytes(16),
            queries=queries,
        )

    def _exchange_batch(
        self, plan: BatchPlan, rows: NDArray[np.float64], costs: Costs, progress: Progress
    ) -> NDArray[np.float64]:
        """Logits of rows that fit one batch."""
        spec, key = self.spec, self._secrets.key_for(plan)
        started = perf_counter()
        header = inference_pb2.BatchHeader(
            model=self._model,
            model_digest=bytes.fromhex(spec.digest),
            plan_digest=bytes.fromhex(plan.digest),
            request_id=secrets.token_bytes(16),
            records=len(rows),
        )
        carried = spec.carry(rows)
        costs.encrypt += perf_counter() - started
        expected = next(b.cost.total for b in self._batches if b.plan == plan)
        patience = self._timeout + PATIENCE * min(LONGEST, expected)

        def attempt(left: float) -> BatchAnswers | None:
            # Encrypted anew when a batch is sent again: no encryption is made for two streams.
            ciphertexts = (key.encrypt_batch(polynomial) for polynomial in pack_batch(plan, carried))
            return infer_batch(self._inference, plan, header, ciphertexts, left, progress)

        def infer(key_digest: bytes) -> BatchAnswers | None:
            header.key_digest = key_digest
            return retries.call(self._target, patience, attempt, costs.again)

        started = perf_counter()
        with self._refusing():
            found = self._with_key(key, plan, costs, infer)
            costs.add_batch(found, perf_counter() - started)
            started = perf_counter()
            logits = read_batch(plan, key.polynomial(), found.answers, len(rows))
        costs.decrypt += perf_counter() - started
        return logits

    def _with_key(
        self, key: SecretKey, plan: Plan, costs: Costs, infer: Callable[[bytes], Answered | None]
    ) -> Answered:
        """`infer(key digest)`, which returns None when the server does not hold the key; it is uploaded then, and again where
        another client of the same identity deletes it meanwhile."""
        if not self._secrets.holds(plan):
            self._upload(key, plan, costs)
        uploads = 0
        while (answered := infer(self._secrets.digest(plan, key))) is None:
            if uploads == UPLOADS:
                raise CallFailed(
                    "the server forgot the public key right after it was uploaded, again and again; its key memory may be "
                    "too small, or another client of this identity deletes its keys"
                )
            self._upload(key, plan, costs)
            uploads += 1
        return answered

    def _infer(self, request: inference_pb2.InferRequest, costs: Costs) -> inference_pb2.InferResponse:
        started = perf_counter()
        response: inference_pb2.InferResponse = retries.call(
            self._target, self._timeout, lambda left: self._inference.Infer(request, timeout=left), costs.again
        )
        costs.call += perf_counter() - started
        costs.rounds += 1
        costs.bytes_up += request.ByteSize()
        costs.bytes_down += response.ByteSize()
        costs.add_times(response.answers.times)
        return response

    def _read(
        self,
        plan: QueryPlan,
        request: inference_pb2.InferRequest,
        response: inference_pb2.InferResponse,
        key: SecretKey,
    ) -> NDArray[np.float64]:
        """Logits from a response."""
        with self._refusing():
            if (response.request_id, response.model_digest) != (request.request_id, request.model_digest):
                raise AnswerRefused("answer: it is bound to another request or model")
            if len(response.answers.answers) != len(request.queries):
                raise AnswerRefused(f"answer: expected {len(request.queries)}, got {len(response.answers.answers)}")
            rows = key.rows(plan)
            return np.stack([read_answer(plan, rows, answer.products) for answer in response.answers.answers])

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A refusal in here destroys the keys, all of them: what the server could learn from it is then worthless.

        First of all in the key ring, so that no later process has them or starts counting anew.
        """
        try:
            yield
        except AnswerRefused as refusal:
            try:
                self._entry.refuse()
            finally:
                self._secrets.forget()
            raise AnswerRefused(
                f"{refusal.message}. The server is faulty or hostile: nothing was retried, the key was destroyed"
                + ("; this client stops" if self._entry.state.refusals > 1 else "")
            ) from None

    # Queries that other software carries.

    def encrypt(self, x: NDArray[np.float64]) -> Encrypted:
        """Rows (B, d), held to the contract, as one call's queries; the server has been sent the keys for them.

        Raises InvalidInput for more rows than one call takes, UnsupportedHead where only batches are offered.
        """
        self._require_going()
        plan = self.plan
        if not isinstance(plan, QueryPlan):
            raise UnsupportedHead(f"model {self._model!r}: the server offers batches alone, which `predict` sends")
        if len(x) > plan.queries_per_call:
            raise InvalidInput(f"rows: expected at most {plan.queries_per_call} in one call, got {len(x)}")
        key = self._secrets.key_for(plan)
        if plan.key_bytes and (plan.digest, key.upload(plan).digest) not in self._secrets.uploaded:
            self._upload(key, plan, Costs())  # made here, so that it can be sent again under the same digest
        return Encrypted(plan, key, self._request(plan, key, x))

    def upload_again(self, encrypted: Encrypted) -> None:
        """Send the keys of a query, which the server says that it does not hold."""
        self._upload(encrypted.key, encrypted.plan, Costs())

    def decrypt(self, encrypted: Encrypted, response: inference_pb2.InferResponse) -> NDArray[np.float64]:
        """Logits (B, K); raises AnswerRefused as `predict` does, InvalidInput when the query's key was destroyed."""
        self._require_going()
        if self._secrets.by_ring.get(encrypted.plan.parameters) is not encrypted.key:
            raise InvalidInput("query: its key was destroyed since; encrypt the rows again")
        key = self._secrets.key_for(encrypted.plan)
        return self._read(encrypted.plan, encrypted.request, response, key)

    # The key.

    def _upload(self, key: SecretKey, plan: Plan, costs: Costs) -> None:
        upload = key.upload(plan)
        costs.key_bytes += retries.call(
            self._target,
            self._timeout,
            lambda left: upload_key(self._keys, self._model, plan, upload, self._target, left),
            costs.again,
        )
        self._secrets.sent(plan, upload)

    def _call(self, function: Callable[[float], Answered]) -> Answered:
        return retries.call(self._target, self._timeout, function)
