"""One model at one server: what was pinned, the plan in use, the key, and the exchange of queries for answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, sleep
from typing import TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.allocation import cheapest_for
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import (
    AnswerRefused,
    CallFailed,
    InternalFault,
    ModelChanged,
    PlanRefused,
    ResourceExhausted,
    SettingsError,
    UnsupportedHead,
)
from secure_infer.heads import ModelSpec
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer_client import transport
from secure_infer_client.batches import BatchAnswers, Progress, infer_batch, nothing
from secure_infer_client.choice import LONGEST, MAX_OFFERS, Batch, Offer, Offered, Query, in_a_row, usable
from secure_infer_client.costs import Costs
from secure_infer_client.keyring import KeyRing
from secure_infer_client.keys import SecretKey
from secure_infer_client.uploads import upload_key

BUSY_PAUSE = 0.1  # seconds, about, until a busy server is asked again
PATIENCE = 4.0  # a batch may take so many times its estimate, beside the timeout of every call

Answered = TypeVar("Answered")


class Session:
    """Not thread-safe; `Client` serialises calls."""

    def __init__(
        self,
        channel: grpc.Channel,
        target: str,
        model: str,
        privacy: Privacy | None,
        link: Link,
        timeout: float,
        accept_model: Callable[[ModelSpec], bool] | None,
    ) -> None:
        self._models = models_pb2_grpc.ModelServiceStub(channel)
        self._keys = keys_pb2_grpc.KeyServiceStub(channel)
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._target, self._model, self._privacy = target, model, privacy
        self._link = link
        self._timeout, self._accept_model = timeout, accept_model
        self._spec: ModelSpec | None = None
        self._query: Query | None = None
        self._batches: list[Batch] = []
        self._secrets = KeyRing()
        self._refusals = 0
        self._offered = Offered()

    label_only = False
    """Logits are what a server answers with."""

    # What is served.

    @property
    def spec(self) -> ModelSpec:
        """The pinned model; asked for once."""
        return self._refresh() if self._spec is None else self._spec

    @property
    def plan(self) -> Plan:
        """The plan for single queries, or else for batches; raises UnsupportedHead when the server has none."""
        self.spec  # noqa: B018 (asks for the model)
        for option in (self._query, *self._batches):
            if option is not None:
                return option.plan
        raise UnsupportedHead(f"model {self._model!r} cannot be evaluated under encryption: {self._offered.reason}")

    @property
    def offered(self) -> Offered:
        """Every plan offered, where a client uses only the quickest."""
        self.spec  # noqa: B018 (asks for the model)
        return self._offered

    @property
    def batch_plans(self) -> list[BatchPlan]:
        """The batch plans that are used where they are quicker; the smallest batch first."""
        self.spec  # noqa: B018 (asks for the model)
        return sorted((batch.plan for batch in self._batches), key=lambda plan: plan.records)

    def _call(self, function: Callable[[], transport.Result]) -> transport.Result:
        return transport.call(self._target, self._timeout, function)

    def _refresh(self) -> ModelSpec:
        """Ask for the model and its plans; hold them to this client's own table and to what it pinned."""
        request = models_pb2.GetModelRequest(model=self._model, privacy=wire_plans.privacy_to_proto(self._privacy))
        response = self._call(lambda: self._models.GetModel(request, timeout=self._timeout))
        spec = wire_models.from_proto(response.model)
        if spec.name != self._model:
            raise PlanRefused(f"asked for model {self._model!r}, the server described {spec.name[:64]!r}")
        # All of it is pinned, not the digest alone: a client cannot recompute the digest of a model it does not have.
        if self._spec is not None and spec != self._spec and not (self._accept_model and self._accept_model(spec)):
            raise ModelChanged(
                f"model {self._model!r} changed on the server: pinned {self._spec.digest[:12]}…, now {spec.digest[:12]}… "
                "or another description of it. "
                "Check with its operator, then make a new client or pass accept_model"
            )
        if len(response.offers) > MAX_OFFERS:
            raise PlanRefused(f"offers: expected at most {MAX_OFFERS}, got {len(response.offers)}")
        offers = []
        for message in response.offers:
            plan = wire_plans.from_proto(message.plan)
            plan.check_for(spec.encrypted, spec.outputs, self._privacy or Privacy.INPUT_PRIVATE)
            offers.append(Offer(self._with_own_primes(plan), message.server_seconds))
        self._offered = Offered(
            tuple(offers), response.unit_costs, response.no_plan_reason or "the server offers no plan"
        )
        query, self._batches = usable(offers, self._link, response.unit_costs) if offers else (None, [])
        self._query = None if query is None else in_a_row(query, response.unit_costs)
        self._spec = spec
        self._secrets.keep({offer.plan.parameters for offer in offers})
        return spec

    @staticmethod
    def _with_own_primes(plan: Plan) -> Plan:
        """`plan`, when its primes are the ones this client's SEAL would choose for their sizes."""
        offered = plan.parameters
        special = None if offered.special_prime is None else offered.special_prime.bit_length()
        own = seal.parameters(offered.degree, tuple(p.bit_length() for p in offered.data_primes), special)
        if own != offered:
            raise PlanRefused(f"plan: the primes offered for {offered} are not SEAL's; they may be chosen to be weak")
        return plan

    # Queries.

    def predict(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> NDArray[np.float64]:
        """Logits (B, K) of rows (B, d), held to the contract already."""
        if self._refusals > 1:
            raise AnswerRefused("this client stopped: two answers failed their checks. Report the server; do not retry")
        pinned = self.spec
        try:
            return self._predict_once(x, costs, progress)
        except (ModelChanged, PlanRefused):
            # The server says that what was pinned is stale. Nothing of this part was evaluated, so nothing about the
            # key can leak. All of x starts anew: one call is never answered by two models.
            current = self._refresh()
        if current.embedder != pinned.embedder:
            raise ModelChanged(f"model {self._model!r} now takes another embedder; make a new client")
        return self._predict_once(current.contract.check(x), costs, progress)

    def decide(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> list[str]:
        """The answer of each row in words."""
        logits = self.predict(x, costs, progress)
        return self.spec.decide(logits)

    def _predict_once(self, x: NDArray[np.float64], costs: Costs, progress: Progress) -> NDArray[np.float64]:
        self.plan  # noqa: B018 (there is one)
        held = {plan for plan, _ in self._secrets.uploaded}
        shares = cheapest_for(len(x), self._query, self._batches, self._link, held).shares
        whole = sum(share.cost.total for share in shares) or 1.0
        found: list[NDArray[np.float64]] = []
        done, start = 0.0, 0
        for share in shares:
            plan = share.plan
            most = plan.records if isinstance(plan, BatchPlan) else plan.queries_per_call
            costs.plans.append(plan)
            for first in range(start, start + share.records, most):
                rows = x[first : min(first + most, start + share.records)]
                part = share.cost.total / whole * len(rows) / share.records
                before = done

                def reached(fraction: float, before: float = before, part: float = part) -> None:
                    progress(min(1.0, before + fraction * part))

                if isinstance(plan, BatchPlan):
                    found.append(self._exchange_batch(plan, rows, costs, reached))
                else:
                    found.append(self._exchange(rows, costs))
                done += part
                progress(min(1.0, done))
            start += share.records
        return np.concatenate(found)

    def _exchange(self, rows: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
        """Logits of rows that fit one call of single queries."""
        if self._query is None:
            raise InternalFault("session: expected a plan for single queries")
        spec, plan = self.spec, self._query.plan
        key = self._secrets.key_for(plan)
        started = perf_counter()
        queries = [
            inference_pb2.Query(ciphertexts=[key.encrypt(p) for p in pack_input(plan, row)]) for row in spec.carry(rows)
        ]
        request = inference_pb2.InferRequest(
            model=self._model,
            model_digest=bytes.fromhex(spec.digest),
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=key.upload(plan).digest if plan.key_bytes else b"",
            request_id=secrets.token_bytes(16),
            queries=queries,
        )
        costs.encrypt += perf_counter() - started

        def infer() -> inference_pb2.InferResponse | None:
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
            key_digest=key.upload(plan).digest if plan.key_bytes else b"",
            request_id=secrets.token_bytes(16),
            records=len(rows),
        )
        carried = spec.carry(rows)
        costs.encrypt += perf_counter() - started
        expected = next(b.cost.total for b in self._batches if b.plan == plan)
        patience = self._timeout + PATIENCE * min(LONGEST, expected)

        def attempt() -> BatchAnswers | None:
            # Encrypted anew when a batch is sent again: no encryption is made for two streams.
            ciphertexts = (key.encrypt_batch(polynomial) for polynomial in pack_batch(plan, carried))
            return infer_batch(self._inference, plan, header, ciphertexts, patience, progress)

        started = perf_counter()
        with self._refusing():
            found = self._with_key(key, plan, costs, lambda: self._patiently(attempt, patience))
            costs.add_batch(found, perf_counter() - started)
            started = perf_counter()
            logits = read_batch(plan, key.polynomial(), found.answers, len(rows))
        costs.decrypt += perf_counter() - started
        return logits

    def _with_key(self, key: SecretKey, plan: Plan, costs: Costs, infer: Callable[[], Answered | None]) -> Answered:
        """`infer()`, which returns None when the server does not hold the key; it is uploaded then, once."""
        if not self._secrets.holds(plan, key):
            self._upload(key, plan, costs)
        answered = infer()
        if answered is None:
            self._upload(key, plan, costs)
            answered = infer()
        if answered is None:
            raise CallFailed(
                "the server forgot the public key right after it was uploaded; its key memory may be too small"
            )
        return answered

    def _infer(self, request: inference_pb2.InferRequest, costs: Costs) -> inference_pb2.InferResponse:
        started = perf_counter()
        response: inference_pb2.InferResponse = self._patiently(
            lambda: self._inference.Infer(request, timeout=self._timeout), self._timeout
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
        """A refusal in here destroys the keys, all of them: what the server could learn from it is then worthless."""
        try:
            yield
        except AnswerRefused as refusal:
            self._refusals += 1
            self._secrets.destroy()
            raise AnswerRefused(
                f"{refusal.message}. The server is faulty or hostile: nothing was retried, the key was destroyed"
                + ("; this client stops" if self._refusals > 1 else "")
            ) from None

    # The key.

    def _patiently(self, function: Callable[[], transport.Result], timeout: float) -> transport.Result:
        """A call, repeated while the server says that it is busy and may be asked again."""
        started = perf_counter()
        while True:
            try:
                return transport.call(self._target, timeout, function)
            except ResourceExhausted as busy:
                # Many clients at once, after a server's start say: it takes so many uploads, queries or batches at a time.
                if "again" not in busy.details or perf_counter() - started > timeout:
                    raise
                sleep(BUSY_PAUSE * (0.5 + secrets.randbelow(100) / 100))

    def _upload(self, key: SecretKey, plan: Plan, costs: Costs) -> None:
        upload = key.upload(plan)
        header = keys_pb2.KeyHeader(
            model=self._model,
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=upload.digest,
            size=len(upload.data),
        )

        costs.key_bytes += self._patiently(
            lambda: upload_key(self._keys, header, upload.data, self._target, self._timeout), self._timeout
        )
        self._secrets.uploaded.add((plan.digest, upload.digest))

    def plaintext(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The server's plaintext baseline, for benchmarks on public data; off by default on servers."""
        request = inference_pb2.EvaluatePlaintextRequest(model=self._model, rows=x.astype("<f8").tobytes())
        response = self._call(lambda: self._inference.EvaluatePlaintext(request, timeout=self._timeout))
        return np.frombuffer(response.logits, "<f8").reshape(len(x), self.spec.outputs)

    def close(self) -> None:
        self._secrets.close()


def parse_privacy(value: str | None) -> Privacy | None:
    """The level named by `value`; raises SettingsError for an unknown name."""
    try:
        return None if value is None else Privacy(value)
    except ValueError:
        raise SettingsError(f"privacy: expected one of {', '.join(Privacy)}, got {value!r}") from None
