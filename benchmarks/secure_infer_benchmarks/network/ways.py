"""Ways to ask a server or two parties about a head: in plaintext, by one CKKS plan of those offered, by shares.

A client takes the plan that is quickest on its link. `OneOffer` has it take another: of what the server offers, the client
hears of one plan alone. Everything else is the client's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import QueryPlan
from secure_infer.heads import Head
from secure_infer.mpc.program import Answers, Program, Weights
from secure_infer.v1 import models_pb2
from secure_infer_benchmarks.cost.ways import described
from secure_infer_benchmarks.delays import explained
from secure_infer_benchmarks.parties import Parties, Served, credentials
from secure_infer_benchmarks.timed import Answer, Floats, by_client, in_plaintext
from secure_infer_client import Client, transport
from secure_infer_client.calls import Calls
from secure_infer_client.choice import Offer, usable
from secure_infer_client.mpc.session import rows_a_request
from secure_infer_client.planning.shared_work import Taken, taken
from secure_infer_client.prediction import CallStats
from secure_infer_client.schemes import open_session

Pem = dict[str, Path]


class Way(ABC):
    """One way to ask about one head. name: unique among those of a head; scheme: "plaintext", "ckks" or "mpc"."""

    def __init__(self, head_name: str, head: Head, scheme: str, name: str) -> None:
        self.head_name, self.head, self.scheme, self.name = head_name, head, scheme, name

    @property
    @abstractmethod
    def plan(self) -> str:
        """How it is evaluated, in words; known once it is open."""

    @abstractmethod
    def open(self, stack: ExitStack) -> None:
        """Make the client, which the stack closes. Nothing is sent yet."""

    @abstractmethod
    def ask(self, x: Floats) -> tuple[Answer, CallStats | None]:
        """Logits (B, K) or labels of rows (B, d), and what they cost, where the client says."""

    @abstractmethod
    def expected(self, link: Link) -> dict[str, float]:
        """predicted_ms: by the planner, of one record on that link. explained_ms: see `Shared`. Once it is open."""


class Plain(Way):
    """The plaintext call of the server, which reads the row. Predicted is what its bytes take: nobody plans it."""

    plan = "–"

    def __init__(self, name: str, head: Head, address: str, pem: Pem) -> None:
        super().__init__(name, head, "plaintext", "plaintext")
        self._client = partial(Client, address, model=name, **credentials(pem))

    def open(self, stack: ExitStack) -> None:
        self._opened = stack.enter_context(self._client())

    def ask(self, x: Floats) -> tuple[Floats, None]:
        return in_plaintext(self._opened, x)

    def expected(self, link: Link) -> dict[str, float]:
        return {"predicted_ms": 1e3 * link.transfer(*self.bytes)}

    @property
    def bytes(self) -> tuple[int, int]:
        """Up and down, of one record's numbers."""
        return 8 * self.head.features, 8 * self.head.outputs


class Encrypted(Way):
    """CKKS by one of the plans that the server offers. costs: the server's unit costs, as JSON."""

    def __init__(self, name: str, head: Head, address: str, pem: Pem, offer: Offer, costs: str) -> None:
        super().__init__(name, head, "ckks", f"ckks/{offer.plan.kind}, {offer.plan.query_bytes:,} bytes up")
        self._address, self._pem, self._offer, self._costs = address, pem, offer, costs

    @property
    def plan(self) -> str:
        return described(self._offer.plan)

    def open(self, stack: ExitStack) -> None:
        session, channels = open_session(
            transport.targets([self._address], str(self._pem["ca.pem"]), str(self._pem["client.key"]), party=False),
            "ckks",
            self._connect,
            model=self.head_name,
            privacy=None,
            link=None,
            timeout=60.0,
            accept_model=None,
            key_ring=None,
        )
        self._calls = Calls(session, channels)
        stack.callback(self._calls.close)

    def _connect(self, target: str) -> grpc.Channel:
        channel = transport.channel(target, token=None, **credentials(self._pem))
        return grpc.intercept_channel(channel, OneOffer(self._offer.plan.digest))

    def ask(self, x: Floats) -> tuple[Floats, CallStats]:
        rows = self._calls.spec().contract.check(x)
        answered = self._calls.predict(rows, 0.0, lambda part: None)
        return answered.answers, answered.stats

    def expected(self, link: Link) -> dict[str, float]:
        query, _ = usable([self._offer], link, self._costs)
        return {} if query is None else {"predicted_ms": 1e3 * query.cost.total}


class Shared(Way):
    """Two parties. predicted_ms: the planner's. explained_ms: what messages that wait for each other take (`delays`), with
    the same bytes and computing; both halves travel at once."""

    _taken: dict[str, Taken] = {}  # noqa: RUF012 (by program, for all ways: computing is measured once)

    def __init__(self, name: str, head: Head, parties: Parties, weights: Weights, answers: Answers) -> None:
        labels = ", labels alone" if answers is Answers.LABEL else ""
        super().__init__(name, head, "mpc", f"mpc/{weights} weights{labels}")
        self._client = partial(parties.client, Served.named(name, head, weights, answers).name)

    @property
    def plan(self) -> str:
        return described(self._program)

    @property
    def _program(self) -> Program:
        found = self._opened.plan
        assert isinstance(found, Program)
        return found

    def open(self, stack: ExitStack) -> None:
        self._opened = stack.enter_context(self._client())

    def ask(self, x: Floats) -> tuple[Answer, CallStats]:
        return by_client(self._opened, x)

    def expected(self, link: Link) -> dict[str, float]:
        program = self._program
        if program.digest not in self._taken:
            self._taken[program.digest] = taken(program, 1, rows_a_request(program))
        cost = self._taken[program.digest]
        one_way = 8 * (cost.bytes_up / 2 + cost.link_bytes) / link.up + 8 * cost.bytes_down / 2 / link.down
        computing = 1e3 * ((cost.compute or 0.0) + one_way)
        return {
            "predicted_ms": 1e3 * cost.seconds(link),
            "explained_ms": explained(computing, max(1, cost.rounds), 1e3 * link.round_trip),
        }


class OneOffer(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Leaves of a model's description one offer: of the plan with that digest."""

    def __init__(self, digest: str) -> None:
        self._digest = bytes.fromhex(digest)

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        call = continuation(details, request)
        if not details.method.endswith("/GetModel"):
            return call
        response = models_pb2.GetModelResponse()
        response.CopyFrom(call.result())
        kept = [offer for offer in response.offers if offer.plan.digest == self._digest]
        del response.offers[:]
        response.offers.extend(kept)
        return _Answered(response)


@dataclass(frozen=True)
class _Answered:
    """A finished call, as far as a blocking stub asks."""

    response: models_pb2.GetModelResponse

    def result(self, timeout: float | None = None) -> models_pb2.GetModelResponse:
        return self.response


def offers_of(address: str, pem: Pem, model: str) -> tuple[list[Offer], str]:
    """Every plan for single queries that the server offers, and its unit costs."""
    with Client(address, model=model, **credentials(pem)) as client:
        offered = client.offered
    return [offer for offer in offered.offers if isinstance(offer.plan, QueryPlan)], offered.unit_costs
