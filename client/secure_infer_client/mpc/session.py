"""One model at two parties: what was pinned, and the exchange of shares of queries for shares of answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import fields
from time import perf_counter

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.errors import AnswerRefused, HalvesDiffer, ModelChanged, PlanRefused, SecureInferError, SettingsError
from secure_infer.heads import ModelSpec, Task
from secure_infer.mpc.program import Largest, Positive, Program, Weights
from secure_infer.mpc.ring import Words
from secure_infer.mpc.sharing import encode_fairly, split
from secure_infer.v1 import models_pb2, mpc_pb2
from secure_infer.wire import models as wire_models
from secure_infer.wire import mpc as wire_mpc
from secure_infer_client import retries
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.choice import Offered
from secure_infer_client.costs import Costs
from secure_infer_client.keyring import Entry
from secure_infer_client.mpc.answers import Answers, Bits, read
from secure_infer_client.mpc.parties import Parties

BOTH = "both parties"
REQUEST_BYTES = 2 << 20
"""Of one half, unless a single record takes more."""
FREE_RETRIES = 4
SLACK = 8
"""A session retries so often at least, and so many times as often as truncation fails. A deviating party learns about one
bit from each."""


class SharedSession:
    """Not thread-safe; `Client` serialises calls."""

    def __init__(
        self,
        targets: Sequence[str],
        channels: Sequence[grpc.Channel],
        model: str,
        timeout: float,
        accept_model: Callable[[ModelSpec], bool] | None,
        entry: Entry,
    ) -> None:
        """entry: what is kept of earlier processes; the session's to close."""
        self._parties, self._timeout = Parties(targets, channels), timeout
        self._model, self._accept_model = model, accept_model
        self._pinned: tuple[ModelSpec, Program] | None = None
        self._entry = entry
        self._retries, self._records = entry.state.retries, entry.state.records

    # What is served.

    @property
    def pinned(self) -> ModelSpec | None:
        """The pinned model, where it was asked for already; asks nobody."""
        return None if self._pinned is None else self._pinned[0]

    @property
    def spec(self) -> ModelSpec:
        """The pinned model; asked for once, or never where the key ring has it."""
        return self._known[0]

    @property
    def plan(self) -> Program:
        """How both parties evaluate it; pinned like the model."""
        return self._known[1]

    @property
    def label_only(self) -> bool:
        return self.plan.label_only

    @property
    def batch_plans(self) -> list[BatchPlan]:
        """None: one program serves single records and many."""
        return []

    @property
    def offered(self) -> Offered:
        return Offered(reason="two parties evaluate one program, which is `plan`; there is nothing to choose from")

    @property
    def _known(self) -> tuple[ModelSpec, Program]:
        if self._pinned is None:
            self._pinned = self._remembered()
        return self._refresh() if self._pinned is None else self._pinned

    def _remembered(self) -> tuple[ModelSpec, Program] | None:
        """The model as an earlier process pinned it."""
        try:
            responses = [models_pb2.GetModelResponse.FromString(held) for held in self._entry.state.pinned]
            return self._agreed(responses) if responses else None
        except (SecureInferError, ValueError):  # of another version of this software
            return None

    def _refresh(self) -> tuple[ModelSpec, Program]:
        """Ask both parties for the model; hold their words to each other, to the contract and to what was pinned."""
        request = models_pb2.GetModelRequest(model=self._model)
        responses = retries.call(BOTH, self._timeout, lambda left: self._parties.models(request, left))
        spec, program = self._agreed(responses)
        if self._pinned not in (None, (spec, program)) and not (self._accept_model and self._accept_model(spec)):
            raise ModelChanged(
                f"model {self._model!r} changed at both parties: pinned {_names(*(self._pinned or (spec, program)))}, "
                f"now {_names(spec, program)}, or another description of it. "
                "Check with its operators, then make a new client or pass accept_model"
            )
        self._pinned = (spec, program)
        with self._entry.changing() as state:
            state.pinned = [response.SerializeToString() for response in responses]
        return self._pinned

    def _agreed(self, responses: Sequence[models_pb2.GetModelResponse]) -> tuple[ModelSpec, Program]:
        """What both say of the model."""
        described = [self._described(*pair) for pair in zip(self._parties.targets, responses, strict=True)]
        numbers = [response.party if response.HasField("party") else None for response in responses]
        if sorted(n for n in numbers if n is not None) != [0, 1]:
            # Two names of one process would be given both halves.
            said = " and ".join(f"{t} says {n}" for t, n in zip(self._parties.targets, numbers, strict=True))
            raise HalvesDiffer(f"parties: expected party 0 at one target and party 1 at the other; {said}")
        if described[0] != described[1]:
            raise HalvesDiffer(self._difference(described))
        spec, program = described[0]
        program.check_for(spec.encrypted, spec.outputs)
        _check_answers(spec, program)
        return spec, program

    def _described(self, target: str, response: models_pb2.GetModelResponse) -> tuple[ModelSpec, Program]:
        if not response.HasField("program"):
            raise PlanRefused(
                f"{target} serves {self._model!r} without a program for two parties: expected `secure-infer party` there; "
                "for one server use scheme='ckks'"
            )
        spec = wire_models.from_proto(response.model)
        if spec.name != self._model:
            raise PlanRefused(f"asked {target} for model {self._model!r}, it described {spec.name[:64]!r}")
        return spec, wire_mpc.program_from_proto(response.program)

    def _difference(self, described: Sequence[tuple[ModelSpec, Program]]) -> str:
        """Which party says what, and in which facts and settings they differ."""
        told = []
        for target, (spec, program) in zip(self._parties.targets, described, strict=True):
            told.append(
                f"{target} serves {_names(spec, program)}, {program.weights} weights, {program.answers} answers, "
                f"comparisons by {program.comparisons}"
            )
        (spec, program), (other, others) = described
        differing = [f"model's {name}" for name in _differing(spec, other)]
        differing += [f"program's {name}" for name in _differing(program, others)]
        # Each run of share-model has its own digest, of the same facts.
        of_two_runs = differing == ["model's digest"] and program.weights is Weights.SHARED
        return (
            f"the parties differ on model {self._model!r} (in the {', '.join(differing)}): {' and '.join(told)}. "
            + (
                "These are halves of different share-model runs; give both parties the files of one run"
                if of_two_runs
                else "Ask both operators to serve the same artifact with the same options"
            )
        )

    # Queries.

    def predict(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> NDArray[np.float64]:
        """Logits (B, K) of rows (B, d), held to the contract already; SettingsError where labels alone are answered."""
        return self._answers(x, costs, progress, logits=True)

    def decide(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> list[str]:
        """The answer of each row in words."""
        found = self._answers(x, costs, progress, logits=False)
        return self.spec.named(found) if found.dtype == np.bool_ else self.spec.decide(found)

    def _answers(self, x: NDArray[np.float64], costs: Costs, progress: Progress, *, logits: bool) -> Answers:
        if self._entry.state.refusals > 1:
            raise AnswerRefused(
                f"this client stopped: two answers failed their checks. {self._entry.after_refusals('operators of both parties')}"
            )
        pinned = self.spec
        try:
            return self._answers_once(x, costs, progress, logits)
        except (ModelChanged, PlanRefused):
            # A party says that what was pinned is stale. All of x starts anew: one call is never answered by two models.
            costs.plans.clear()
            current, _ = self._refresh()
        if current.embedder != pinned.embedder:
            raise ModelChanged(f"model {self._model!r} now takes another embedder; make a new client")
        return self._answers_once(current.contract.check(x), costs, progress, logits)

    def _answers_once(self, x: NDArray[np.float64], costs: Costs, progress: Progress, logits: bool) -> Answers:
        spec, program = self._known
        if logits and program.label_only:
            raise SettingsError(
                f"model {self._model!r} answers with labels alone, so that nobody learns its logits: use decide or classify"
            )
        costs.plans.append(program)
        most = rows_a_request(program)
        found = []
        for start in range(0, len(x), most):
            found.append(self._checked(spec, program, x[start : start + most], costs))
            progress(min(1.0, (start + most) / len(x)))
        costs.spec = spec
        return np.concatenate(found)

    def _checked(self, spec: ModelSpec, program: Program, rows: NDArray[np.float64], costs: Costs) -> Answers:
        """Answers to rows that fit one request, asked a second time where one cannot be right."""
        self._records += len(rows)
        found, sound = self._exchange(spec, program, rows, costs)
        if sound.all():
            return found
        self._retries += 1
        self._count()  # before it is asked again: each time may tell a deviating party about a bit
        if self._retries > FREE_RETRIES + SLACK * program.failure_probability * self._records:
            self._refuse(f"answer: {self._retries} requests failed their checks, more often than truncation does")
        costs.retries += 1
        # All rows again with fresh shares: which of them failed is nobody's business.
        again, sure = self._exchange(spec, program, rows, costs)
        if not (sound | sure).all():
            self._refuse(f"answer: {int((~(sound | sure)).sum())} of {len(rows)} records failed their checks twice")
        return np.where(sound[:, None], found, again)

    def _exchange(
        self, spec: ModelSpec, program: Program, rows: NDArray[np.float64], costs: Costs
    ) -> tuple[Answers, Bits]:
        started = perf_counter()
        encoded = encode_fairly(spec.carry(rows), program.fraction)
        costs.encrypt += perf_counter() - started

        def attempt(left: float) -> tuple[list[mpc_pb2.InferShareRequest], list[mpc_pb2.InferShareResponse]]:
            # Halves of their own under an id of its own each time: a half is sent once.
            requests = self._halves(spec, program, encoded)
            return requests, self._parties.infer(requests, left)

        started = perf_counter()
        requests, responses = retries.call(BOTH, self._timeout, attempt, costs.again)
        costs.add_shares(requests, responses, perf_counter() - started)
        started = perf_counter()
        shares = [self._share(number, requests[number], responses[number], program) for number in range(2)]
        answers = read(program, *shares)
        costs.decrypt += perf_counter() - started
        return answers

    def _halves(self, spec: ModelSpec, program: Program, encoded: Words) -> list[mpc_pb2.InferShareRequest]:
        """Encoded rows (B, d) as a request to each party."""
        identity = secrets.token_bytes(16)
        return [
            mpc_pb2.InferShareRequest(
                request_id=identity,
                model=self._model,
                model_digest=bytes.fromhex(spec.digest),
                program_digest=bytes.fromhex(program.digest),
                rows=len(encoded),
                share=half.astype("<u8", copy=False).tobytes(),
            )
            for half in split(encoded)
        ]

    def _share(
        self, number: int, request: mpc_pb2.InferShareRequest, response: mpc_pb2.InferShareResponse, program: Program
    ) -> Words:
        """A party's share (B, K) of the answers."""
        target, expected = self._parties.targets[number], program.answer_bytes(request.rows)
        bound = ("request_id", "model_digest", "program_digest")
        if any(getattr(response, name) != getattr(request, name) for name in bound):
            self._refuse(f"answer of {target}: it is bound to another request, model or program")
        if len(response.share) != expected:
            self._refuse(f"answer of {target}: expected {expected} bytes, got {len(response.share)}")
        return np.frombuffer(response.share, "<u8").astype(np.uint64, copy=False).reshape(request.rows, -1)

    def _count(self) -> None:
        with self._entry.changing() as state:
            state.retries, state.records = self._retries, self._records

    def _refuse(self, reason: str) -> None:
        self._entry.refuse()
        raise AnswerRefused(
            f"{reason}. A party is faulty or hostile, and which one cannot be told from here: report it to both operators"
            + ("; this client stops" if self._entry.state.refusals > 1 else "")
        )

    def plaintext(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Two parties have no plaintext baseline."""
        raise SettingsError(
            "evaluate_plaintext: under scheme='mpc' nobody but the client may see a query; ask a server under 'ckks' that "
            "was started with --plaintext-baseline, or evaluate the head here"
        )

    def rotate(self, *, renew: bool) -> int:
        """Two parties hold no keys: none is deleted."""
        return 0

    def fits(self, rows: Sequence[int]) -> int:
        """How many of those who wait with so many rows each, in order, go together: as many as fit one request."""
        totals = np.cumsum(rows)
        return max(1, int((totals <= rows_a_request(self.plan)).sum()))

    def close(self) -> None:
        """Nothing secret outlives a call; what is under way is ended by closing its channel."""
        self._parties.close()
        if self._entry.lasts and self._records != self._entry.state.records:
            self._count()
        self._entry.close()


def rows_a_request(program: Program) -> int:
    """Records of one request at most."""
    return max(1, min(program.most_rows, REQUEST_BYTES // max(program.share_bytes(1), program.answer_bytes(1))))


def _check_answers(spec: ModelSpec, program: Program) -> None:
    """Raise PlanRefused unless the program's last step is what the model's task and the promised answers call for."""
    last = program.steps[-1]
    wanted = (Positive if spec.by_sign else Largest) if program.label_only else None
    early = any(isinstance(step, Positive | Largest) for step in program.steps[:-1])
    if (
        early
        or (wanted is None and isinstance(last, Positive | Largest))
        or (wanted is not None and not isinstance(last, wanted))
        or (wanted is not None and spec.task is Task.REGRESSION)
    ):
        raise PlanRefused(f"program: {program.answers} answers do not come from its steps for a model of {spec.task}")


def _differing(one: ModelSpec | Program, other: ModelSpec | Program) -> list[str]:
    """Names of the fields in which they differ."""
    return [field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)]


def _names(spec: ModelSpec, program: Program) -> str:
    return f"model {spec.digest[:12]}…, program {program.digest[:12]}…"
