"""One model at one server: what was pinned, the plan in use, the key, and the exchange of queries for answers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks import seal
from secure_infer.ckks.coefficient import pack_input, read_answer
from secure_infer.ckks.plan import CoefficientPlan, Privacy
from secure_infer.errors import (
    AnswerRefused,
    CallFailed,
    ModelChanged,
    PlanRefused,
    SettingsError,
    UnsupportedHead,
)
from secure_infer.heads import ModelSpec
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer.wire import models as wire_models
from secure_infer.wire import plans as wire_plans
from secure_infer_client import transport
from secure_infer_client.keys import SecretKey

CHUNK = 1 << 20


@dataclass
class Costs:
    """Running totals of a call; times in seconds."""

    encrypt: float = 0.0
    call: float = 0.0
    server: float = 0.0
    load: float = 0.0
    evaluate: float = 0.0
    decrypt: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    key_bytes: int = 0
    rounds: int = 0
    blinds_ready: int = 0
    blinds_inline: int = 0
    started: float = field(default_factory=perf_counter)


class Session:
    """Not thread-safe; `Client` serialises calls."""

    def __init__(
        self,
        channel: grpc.Channel,
        target: str,
        model: str,
        privacy: Privacy | None,
        timeout: float,
        accept_model: Callable[[ModelSpec], bool] | None,
    ) -> None:
        self._models = models_pb2_grpc.ModelServiceStub(channel)
        self._keys = keys_pb2_grpc.KeyServiceStub(channel)
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._target, self._model, self._privacy = target, model, privacy
        self._timeout, self._accept_model = timeout, accept_model
        self._spec: ModelSpec | None = None
        self._plan: CoefficientPlan | None = None
        self._key: SecretKey | None = None
        self._uploaded: set[tuple[str, bytes]] = set()
        self._refusals = 0
        self._reason = ""
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="secure-infer-mask")
        self._preparing: Future[None] | None = None
        self._process = os.getpid()

    # What is served.

    @property
    def spec(self) -> ModelSpec:
        """The pinned model; asked for once."""
        return self._refresh() if self._spec is None else self._spec

    @property
    def plan(self) -> CoefficientPlan:
        """The plan in use; raises UnsupportedHead when the server has none for the model."""
        self.spec  # noqa: B018 (asks for the model)
        if self._plan is None:
            raise UnsupportedHead(f"model {self._model!r} cannot be evaluated under encryption: {self._reason}")
        return self._plan

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
        self._plan, self._reason = None, response.no_plan_reason or "the server offers no plan"
        for message in response.plans:
            plan = wire_plans.from_proto(message)
            plan.check_for(spec.contract, spec.outputs, self._privacy or Privacy.INPUT_PRIVATE)
            if self._plan is None:
                self._plan = self._with_own_primes(plan)
        self._spec = spec
        return spec

    @staticmethod
    def _with_own_primes(plan: CoefficientPlan) -> CoefficientPlan:
        """`plan`, when its primes are the ones this client's SEAL would choose for their sizes."""
        offered = plan.parameters
        special = None if offered.special_prime is None else offered.special_prime.bit_length()
        own = seal.parameters(offered.degree, tuple(p.bit_length() for p in offered.data_primes), special)
        if own != offered:
            raise PlanRefused(f"plan: the primes offered for {offered} are not SEAL's; they may be chosen to be weak")
        return plan

    # Queries.

    def predict(self, x: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
        """Logits (B, K) of rows (B, d), held to the contract already."""
        if self._refusals > 1:
            raise AnswerRefused("this client stopped: two answers failed their checks. Report the server; do not retry")
        pinned = self.spec
        try:
            return self._predict_once(x, costs)
        except (ModelChanged, PlanRefused):
            # The server says that what was pinned is stale. Nothing of this part was evaluated, so nothing about the
            # key can leak. All of x starts anew: one call is never answered by two models.
            current = self._refresh()
        if current.embedder != pinned.embedder:
            raise ModelChanged(f"model {self._model!r} now takes another embedder; make a new client")
        return self._predict_once(current.contract.check(x), costs)

    def _predict_once(self, x: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
        per_call = self.plan.queries_per_call
        return np.concatenate([self._exchange(x[i : i + per_call], costs) for i in range(0, len(x), per_call)])

    def _exchange(self, rows: NDArray[np.float64], costs: Costs) -> NDArray[np.float64]:
        spec, plan = self.spec, self.plan
        key = self._key_for(plan)
        started = perf_counter()
        queries = [inference_pb2.Query(ciphertexts=[key.encrypt(p) for p in pack_input(plan, row)]) for row in rows]
        request = inference_pb2.InferRequest(
            model=self._model,
            model_digest=bytes.fromhex(spec.digest),
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=key.public_digest if plan.key_bytes else b"",
            request_id=secrets.token_bytes(16),
            queries=queries,
        )
        costs.encrypt += perf_counter() - started
        if plan.key_bytes and (plan.digest, key.public_digest) not in self._uploaded:
            self._upload(key, plan, costs)
        response = self._infer(request, key, costs)
        if response.WhichOneof("result") == "unknown_key":
            self._upload(key, plan, costs)
            response = self._infer(request, key, costs)
            if response.WhichOneof("result") == "unknown_key":
                raise CallFailed(
                    "the server forgot the public key right after it was uploaded; its key memory may be too small"
                )
        started = perf_counter()
        logits = self._read(request, response, key)
        costs.decrypt += perf_counter() - started
        # The next query's mask, in the time until it is asked. Not while waiting for this answer: SEAL holds the
        # interpreter lock, which the answer needs when it comes.
        self._preparing = self._ahead.submit(key.prepare)
        return logits

    def _infer(self, request: inference_pb2.InferRequest, key: SecretKey, costs: Costs) -> inference_pb2.InferResponse:
        started = perf_counter()
        response: inference_pb2.InferResponse = self._call(
            lambda: self._inference.Infer(request, timeout=self._timeout)
        )
        costs.call += perf_counter() - started
        costs.rounds += 1
        costs.bytes_up += request.ByteSize()
        costs.bytes_down += response.ByteSize()
        times = response.answers.times
        costs.server += times.total_us / 1e6
        costs.load += times.load_us / 1e6
        costs.evaluate += times.evaluate_us / 1e6
        costs.blinds_ready += times.blinds_ready
        costs.blinds_inline += times.blinds_inline
        return response

    def _read(
        self, request: inference_pb2.InferRequest, response: inference_pb2.InferResponse, key: SecretKey
    ) -> NDArray[np.float64]:
        """Logits from a response. A refusal destroys the key: what the server could learn from it is then worthless."""
        plan = self.plan
        try:
            if (response.request_id, response.model_digest) != (request.request_id, request.model_digest):
                raise AnswerRefused("answer: it is bound to another request or model")
            if len(response.answers.answers) != len(request.queries):
                raise AnswerRefused(f"answer: expected {len(request.queries)}, got {len(response.answers.answers)}")
            rows = key.rows(plan)
            return np.stack([read_answer(plan, rows, answer.products) for answer in response.answers.answers])
        except AnswerRefused as refusal:
            self._refusals += 1
            self._destroy_key()
            raise AnswerRefused(
                f"{refusal.message}. The server is faulty or hostile: nothing was retried, the key was destroyed"
                + ("; this client stops" if self._refusals > 1 else "")
            ) from None

    # The key.

    def _key_for(self, plan: CoefficientPlan) -> SecretKey:
        self._settle()
        if self._key is None or self._key.parameters != plan.parameters:
            self._destroy_key()
            self._key = SecretKey(plan.parameters)
        return self._key

    def _settle(self) -> None:
        """Wait for the mask that is being made: keys are used by one thread at a time."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None and self._process == os.getpid():
            preparing.exception()  # waits; a mask that could not be made is made when it is needed, or fails there

    def _destroy_key(self) -> None:
        self._settle()
        if self._key is not None:
            self._key.destroy()
            self._key = None
        self._uploaded.clear()

    def _upload(self, key: SecretKey, plan: CoefficientPlan, costs: Costs) -> None:
        header = keys_pb2.KeyHeader(
            model=self._model,
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=key.public_digest,
            size=len(key.public_bytes),
        )

        def chunks() -> Iterator[keys_pb2.UploadKeysRequest]:
            for start in range(0, len(key.public_bytes), CHUNK):
                chunk = key.public_bytes[start : start + CHUNK]
                yield keys_pb2.UploadKeysRequest(header=None if start else header, chunk=chunk)

        self._call(lambda: self._keys.UploadKeys(chunks(), timeout=self._timeout))
        costs.key_bytes += len(key.public_bytes)
        self._uploaded.add((plan.digest, key.public_digest))

    def plaintext(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The server's plaintext baseline, for benchmarks on public data; off by default on servers."""
        request = inference_pb2.EvaluatePlaintextRequest(model=self._model, rows=x.astype("<f8").tobytes())
        response = self._call(lambda: self._inference.EvaluatePlaintext(request, timeout=self._timeout))
        return np.frombuffer(response.logits, "<f8").reshape(len(x), self.spec.outputs)

    def close(self) -> None:
        self._destroy_key()
        self._ahead.shutdown()


def parse_privacy(value: str | None) -> Privacy | None:
    """The level named by `value`; raises SettingsError for an unknown name."""
    try:
        return None if value is None else Privacy(value)
    except ValueError:
        raise SettingsError(f"privacy: expected one of {', '.join(Privacy)}, got {value!r}") from None
