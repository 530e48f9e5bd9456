"""Requests, free of any protocol: what is checked, in which order, and what is evaluated.

Everything that came from a client is checked before SEAL sees it: lengths exactly, residues below their primes, seeds by
length; streams are then built here. See `secure_infer.ckks.seal`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import unpack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import CallFailed, MalformedRequest, PrivacyRefused
from secure_infer_server.blinds import BlindPool, BlindTaker
from secure_infer_server.guard import refuse_secret_streams, refuse_ternary, refuse_ternary_query
from secure_infer_server.keystore import ClientKeys, KeyStore
from secure_infer_server.registry import Offered, OfferedBatch, Registry, ServedModel

MIN_UPLOAD = 16 << 20  # bytes read before a wrong size is refused, so that a secret key sent by mistake is named


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


class Dataplane:
    """One server's models, keys and blinds."""

    def __init__(self, registry: Registry, keys: KeyStore, blinds: BlindPool) -> None:
        self.registry = registry
        self._keys = keys
        self._blinds = blinds

    def offer(self, name: str, privacy: Privacy | None) -> tuple[ServedModel, list[Offered | OfferedBatch]]:
        """The model and the plans a client may use; raises PrivacyRefused for less than the operator's level."""
        model = self.registry.get(name)
        least = model.policy.privacy
        if privacy is not None and privacy.rank < least.rank:
            raise PrivacyRefused(f"model {name!r}: the operator serves it {least}; {privacy} hides less and is refused")
        return model, [*model.offers(privacy or least), *model.batch_offers(privacy or least)]

    def largest_upload(self, name: str, plan_digest: bytes) -> int:
        """Bytes of key material that are read for a plan."""
        return max(MIN_UPLOAD, self.registry.get(name).plan(plan_digest).key_bytes)

    def store_key(self, name: str, plan_digest: bytes, digest: bytes, key: bytes) -> bytes:
        """Check and keep a public key; returns its digest. Raises MalformedRequest or SecretKeyReceived."""
        model = self.registry.get(name)
        plan = model.plan(plan_digest)
        if not plan.key_bytes:
            raise MalformedRequest("public key: this plan takes none")
        if len(key) != plan.key_bytes:
            refuse_secret_streams(key)
        material = keymaterial.parse(plan, key)
        for c0, _ in material.halves:
            refuse_ternary(plan, c0)
        found = hashlib.sha256(key).digest()
        if found != digest:
            raise MalformedRequest(
                f"public key: announced SHA-256 {digest.hex()[:12]}…, its bytes have {found.hex()[:12]}…"
            )
        single = plan_digest in model.offered  # batches are compiled, and make their own blinds
        if single:
            model.offered[plan_digest].evaluator  # noqa: B018 (compiles the plan, before the first query waits for it)
        self._keys.put(plan_digest, digest, ClientKeys.load(plan, material))
        if single and material.public is not None:
            self._blinds.warm(plan, digest, material.public)
        return found

    def infer(
        self,
        name: str,
        model_digest: bytes,
        plan_digest: bytes,
        key_digest: bytes,
        queries: Sequence[Sequence[bytes]],
        abandoned: Callable[[], bool] = lambda: False,
    ) -> Inferred | None:
        """Evaluate queries; None when the key is not held, which the client mends.

        abandoned: asked before each query; true when nobody waits for the answer any more.
        """
        started = perf_counter()
        model = self.registry.get(name)
        model.require(model_digest)
        offered = model.single(plan_digest)
        plan = offered.plan
        if not 1 <= len(queries) <= plan.queries_per_call:
            raise MalformedRequest(f"queries: expected 1 to {plan.queries_per_call} in one call, got {len(queries)}")
        taker: BlindTaker | None = None
        keys: ClientKeys | None = None
        if plan.key_bytes:
            keys = self._keys.get(plan_digest, key_digest)
            if keys is None:
                return None
            if keys.public is not None:
                taker = self._blinds.taker(plan, key_digest, keys.public)
        load = evaluate = 0.0
        answers = []
        for query in queries:
            if abandoned():
                raise CallFailed("the call was cancelled or its deadline passed before it was evaluated")
            before = perf_counter()
            ciphertexts = load_query(plan, query)
            loaded = perf_counter()
            blind = None if taker is None else (lambda: taker(perf_counter))
            answers.append(offered.evaluator.evaluate(ciphertexts, blind, None if keys is None else keys.switching))
            load += loaded - before
            evaluate += perf_counter() - loaded
        if taker is not None:
            taker.done()
        times = Times(
            load,
            evaluate,
            taker.waited if taker else 0.0,
            perf_counter() - started,
            taker.ready if taker else 0,
            taker.inline if taker else 0,
        )
        return Inferred(model.digest, answers, times)

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
