"""Requests, free of any protocol: what is checked, in which order, and what is evaluated.

Everything that came from a client is checked before SEAL sees it: lengths exactly, residues below their primes, seeds by
length; streams are then built here. See `secure_infer.ckks.seal`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from secure_infer.ckks import seal
from secure_infer.ckks.keymaterial import KeyMaterial, SwitchingKeys
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.queries import QueryEvaluator
from secure_infer.ckks.residues import unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import MalformedRequest, PrivacyRefused
from secure_infer_server.blinds import BlindPool
from secure_infer_server.guard import refuse_secret_streams, refuse_ternary_query
from secure_infer_server.keys.screening import check_material
from secure_infer_server.keystore import ClientKeys
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import Offered, OfferedBatch, ServedModel


@dataclass(frozen=True)
class Times:
    """Seconds, and blinds by where they came from."""

    load: float
    evaluate: float
    blind: float
    total: float
    blinds_ready: int
    blinds_inline: int


@dataclass(frozen=True)
class Inferred:
    """Answers (one a query, each a list of products) and what they took."""

    model_digest: bytes
    answers: list[list[bytes]]
    times: Times


class Blinds(Protocol):
    """Where one call takes its blinds from; see `BlindTaker`."""

    ready: int
    inline: int
    waited: float

    def __call__(self, clock: Callable[[], float]) -> seal.Ciphertext: ...

    def done(self) -> None: ...


class Evaluation:
    """One call's queries, evaluated one after the other. blinds: None exactly when the plan is input-private."""

    def __init__(self, evaluator: QueryEvaluator, switching: SwitchingKeys | None, blinds: Blinds | None) -> None:
        self._evaluator, self._switching, self._blinds = evaluator, switching, blinds
        self._started = perf_counter()
        self._load = self._evaluate = 0.0
        self.answers: list[list[bytes]] = []

    def add(self, query: Sequence[bytes]) -> None:
        """Check and evaluate the next query; raises MalformedRequest, or SecretKeyReceived."""
        blinds = self._blinds
        before = perf_counter()
        ciphertexts = load_query(self._evaluator.plan, query)
        loaded = perf_counter()
        blind = None if blinds is None else (lambda: blinds(perf_counter))
        self.answers.append(self._evaluator.evaluate(ciphertexts, blind, self._switching))
        self._load += loaded - before
        self._evaluate += perf_counter() - loaded

    def done(self) -> Times:
        """What it took; blinds are refilled from now on."""
        total = perf_counter() - self._started
        if self._blinds is None:
            return Times(self._load, self._evaluate, 0.0, total, 0, 0)
        self._blinds.done()
        return Times(self._load, self._evaluate, self._blinds.waited, total, self._blinds.ready, self._blinds.inline)


def check_count(plan: QueryPlan, count: int) -> None:
    """Raise MalformedRequest unless that many queries fit one call."""
    if not 1 <= count <= plan.queries_per_call:
        raise MalformedRequest(f"queries: expected 1 to {plan.queries_per_call} in one call, got {count}")


def check_key(plan: Plan, digest: bytes, key: bytes) -> KeyMaterial:
    """Uploaded key material, held to its plan and its SHA-256. Raises MalformedRequest or SecretKeyReceived."""
    material = check_material(plan, key)
    found = hashlib.sha256(key).digest()
    if found != digest:
        raise MalformedRequest(
            f"public key: announced SHA-256 {digest.hex()[:12]}…, its bytes have {found.hex()[:12]}…"
        )
    return material


class Dataplane:
    """One server's models and blinds."""

    def __init__(self, registry: Registry, blinds: BlindPool) -> None:
        self.registry, self._blinds = registry, blinds

    def offer(self, name: str, privacy: Privacy | None) -> tuple[ServedModel, list[Offered | OfferedBatch]]:
        """The model and the plans a client may use; raises PrivacyRefused for less than the operator's level."""
        model = self.registry.get(name)
        least = model.policy.privacy
        if privacy is not None and privacy.rank < least.rank:
            raise PrivacyRefused(f"model {name!r}: the operator serves it {least}; {privacy} hides less and is refused")
        return model, [*model.offers(privacy or least), *model.batch_offers(privacy or least)]

    def begin(self, offered: Offered, key: tuple[bytes, ClientKeys] | None) -> Evaluation:
        """What evaluates one call's queries. key: with what tells it from others (32 bytes), for plans that take one."""
        if key is None:
            return Evaluation(offered.evaluator, None, None)
        name, keys = key
        taker = None if keys.public is None else self._blinds.taker(offered.plan, name, keys.public)
        return Evaluation(offered.evaluator, keys.switching, taker)

    def evaluate_plaintext(self, name: str, rows: bytes) -> bytes:
        """The baseline: rows (B, d) of float64 in, logits (B, K) of float64 out."""
        model = self.registry.get(name)
        width = 8 * model.head.features
        if not rows or len(rows) % width:
            raise MalformedRequest(f"rows: expected a multiple of {width} bytes, got {len(rows)}")
        x = np.frombuffer(rows, "<f8").reshape(-1, model.head.features)
        return model.head.evaluate(model.head.contract.check(x)).astype("<f8").tobytes()


def load_query(plan: Plan, query: Sequence[bytes]) -> list[seal.Ciphertext]:
    """The ciphertexts of one query; raises MalformedRequest, or SecretKeyReceived when it looks like one."""
    if len(query) != plan.ciphertexts:
        raise MalformedRequest(f"query: expected {plan.ciphertexts} ciphertexts, got {len(query)}")
    ring = seal.ring(plan.parameters)
    expected = plan.ciphertext_bytes
    ciphertexts = []
    for data in query:
        if len(data) != expected:
            refuse_secret_streams(data)
            raise MalformedRequest(f"ciphertext: expected {expected} bytes for {plan.parameters}, got {len(data)}")
        packed = memoryview(data)[:-SEED_BYTES]
        c0 = unpack_residues(packed, plan.parameters.degree, plan.parameters.data_primes, "ciphertext")
        refuse_ternary_query(c0, plan.parameters.data_primes)
        ciphertexts.append(ring.expand(c0, data[-SEED_BYTES:]))
    return ciphertexts
