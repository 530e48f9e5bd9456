"""Two parties in this process: their gRPC services over real sockets, the evaluation over a link in memory.

Whichever half of a request comes second has both evaluated. `told` and `answered` change what a party says; `refuse` makes
it fail before it evaluates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import numpy as np
from grpc_status import rpc_status

from secure_infer.errors import ModelChanged, PeerFailure, SecureInferError
from secure_infer.heads import Head, ModelSpec
from secure_infer.mpc.compiler import Compiled, compile_head
from secure_infer.mpc.correlations import Correlations, deal
from secure_infer.mpc.evaluate import Evaluator, Tensor
from secure_infer.mpc.link import memory_links
from secure_infer.mpc.program import Answers, Program, Weights, row_class
from secure_infer.mpc.ring import Matrix, Words
from secure_infer.mpc.sharing import split
from secure_infer.mpc.streams import KeyedStream, fresh_key, uniform_words
from secure_infer.v1 import models_pb2, models_pb2_grpc, mpc_pb2, mpc_pb2_grpc
from secure_infer.wire import models as wire_models
from secure_infer.wire import mpc as wire_mpc
from secure_infer.wire import status as wire_status

EPOCH = b"epoch"


@dataclass
class Pair:
    """One model at both parties: a program and its evaluators."""

    spec: ModelSpec
    program: Program
    evaluators: tuple[Evaluator, Evaluator]
    fixed: dict[int, Matrix]

    @classmethod
    def of(cls, name: str, head: Head, weights: Weights, answers: Answers) -> Pair:
        compiled = compile_head(head, weights=weights, answers=answers)
        first, second = (Evaluator(compiled.program, t, i) for i, t in enumerate(_tensors(compiled)))
        fixed = {}
        if first.mask_shapes:
            masks = [{i: uniform_words(a * b).reshape(a, b) for i, (a, b) in first.mask_shapes.items()} for _ in (0, 1)]
            fixed = {i: Matrix(masks[0][i] + masks[1][i]) for i in masks[0]}
            links = memory_links()
            _both(lambda i: (first, second)[i].open_masks(links[i], EPOCH, masks[i]))
        return cls(ModelSpec.of(name, head), compiled.program, (first, second), fixed)

    def run(self, shares: list[Words]) -> tuple[list[Words], int, int]:
        """Shares of the answers, rounds, and bytes on the link."""
        rows = row_class(len(shares[0]))
        padded = [np.concatenate([s, np.zeros((rows - len(s), s.shape[1]), np.uint64)]) for s in shares]
        recipe = self.program.recipe(rows)
        bundles = (None, None) if recipe is None else deal(recipe, self.fixed)
        links, zero = memory_links(), fresh_key()

        def evaluate(i: int) -> Words:
            own = None if recipe is None or bundles[i] is None else Correlations(bundles[i], recipe, i)
            return self.evaluators[i].run(padded[i], links[i], own, KeyedStream(zero), EPOCH)[: len(shares[0])]

        return _both(evaluate), links[0].rounds, links[0].sent


def _tensors(compiled: Compiled) -> tuple[list[Tensor], list[Tensor]]:
    if compiled.program.weights is Weights.REPLICATED:
        return list(compiled.tensors), list(compiled.tensors)
    halves = [(split(t.weight), split(t.bias)) for t in compiled.tensors]
    return [Tensor(w[0], b[0]) for w, b in halves], [Tensor(w[1], b[1]) for w, b in halves]


def _both(work: Callable[[int], object]) -> list:
    with futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, (0, 1)))


@dataclass
class Party(models_pb2_grpc.ModelServiceServicer, mpc_pb2_grpc.PartyServiceServicer):
    """Half of `Parties`. seen: every request. answered: changes the share (B, K) that it sends."""

    number: int
    both: Parties
    seen: list[mpc_pb2.InferShareRequest] = field(default_factory=list)
    told: Callable[[models_pb2.GetModelResponse], None] = lambda _: None
    answered: Callable[[Words], Words] = lambda share: share
    responded: Callable[[mpc_pb2.InferShareResponse], None] = lambda _: None
    refuse: Callable[[mpc_pb2.InferShareRequest], None] = lambda _: None

    def GetModel(  # noqa: N802
        self, request: models_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> models_pb2.GetModelResponse:
        pair = self.both.pairs[request.model]
        response = models_pb2.GetModelResponse(
            model=wire_models.to_proto(pair.spec),
            program=wire_mpc.program_to_proto(pair.program),
            party=self.number,
        )
        try:
            self.told(response)
        except SecureInferError as error:
            context.abort_with_status(rpc_status.to_status(wire_status.to_status(error)))
        return response

    def InferShare(  # noqa: N802
        self, request: mpc_pb2.InferShareRequest, context: grpc.ServicerContext
    ) -> mpc_pb2.InferShareResponse:
        self.seen.append(request)
        try:
            self.refuse(request)
            pair = self.both.pairs[request.model]
            if bytes.fromhex(pair.spec.digest) != request.model_digest:
                raise ModelChanged("another model is served now")
            share, rounds, sent = self.both.meet(self.number, request, pair)
        except SecureInferError as error:
            context.abort_with_status(rpc_status.to_status(wire_status.to_status(error)))
        response = mpc_pb2.InferShareResponse(
            request_id=request.request_id,
            model_digest=request.model_digest,
            program_digest=request.program_digest,
            share=self.answered(share).tobytes(),
            costs=mpc_pb2.PartyCosts(
                total_us=900,
                wait_us=100,
                link_us=300 + self.number,
                rounds=rounds,
                link_bytes=sent,
                correlation_bytes=32 + (0 if self.number else pair.program.correlation_bytes(request.rows)),
            ),
        )
        self.responded(response)
        return response


class Parties:
    """Serves heads until closed. addresses: of party 0 and party 1."""

    def __init__(
        self,
        heads: Mapping[str, Head],
        weights: Weights = Weights.REPLICATED,
        answers: Answers = Answers.LOGITS,
        patience: float = 20.0,
    ) -> None:
        self.pairs = {name: Pair.of(name, head, weights, answers) for name, head in heads.items()}
        self._patience = patience
        self._lock = threading.Condition()
        self._halves: dict[bytes, dict[int, Words]] = {}
        self._results: dict[bytes, tuple[list[Words], int, int]] = {}
        self.parties = (Party(0, self), Party(1, self))
        self.servers, self.addresses = [], ()
        for party in self.parties:
            server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 8 << 20)])
            models_pb2_grpc.add_ModelServiceServicer_to_server(party, server)
            mpc_pb2_grpc.add_PartyServiceServicer_to_server(party, server)
            self.addresses += (f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}",)
            server.start()
            self.servers.append(server)

    def meet(self, number: int, request: mpc_pb2.InferShareRequest, pair: Pair) -> tuple[Words, int, int]:
        """The answer's share for one half, once the other is here."""
        words = np.frombuffer(request.share, np.uint64).reshape(request.rows, -1)
        with self._lock:
            halves = self._halves.setdefault(request.request_id, {})
            if number in halves:
                raise PeerFailure("this half came twice")
            halves[number] = words
            if len(halves) == 2:
                self._results[request.request_id] = pair.run([halves[0], halves[1]])
                self._lock.notify_all()
            if not self._lock.wait_for(lambda: request.request_id in self._results, self._patience):
                raise PeerFailure(f"peer: no message within {self._patience:g} s")
            shares, rounds, sent = self._results[request.request_id]
        return shares[number], rounds, sent

    def __enter__(self) -> Parties:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop(None).wait()
