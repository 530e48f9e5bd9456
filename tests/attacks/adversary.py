"""What every adversary here can do: own a key, pack queries, take answers apart, and compute in the ring.

The adversaries play the key holder (against the model) or the server (against the input and the key). They use the
public formats and their own key only; where one looks into the other side, it is to check what was found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.coefficient import CoefficientPlan, LinearEvaluator, pack_input, planner
from secure_infer.ckks.coefficient.planner import integer_weights
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import Residues, add, unpack
from secure_infer.heads import Head, InputContract, Linear
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer_client import transport
from secure_infer_client.keys import SecretKey
from secure_infer_client.uploads import CHUNK
from secure_infer_server.blinds import BlindPool
from secure_infer_server.dataplane import Dataplane, load_query
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import ServedModel
from secure_infer_server.settings import Policy

SIGMAS = 6.0
"""Where a test on a normal deviate stops believing in chance: 2e-9 a test, two-sided; 3e-8 for `agreement`."""

CHANCE = 1e-8
"""Where a chi-square test does."""


def random_head(features: int, outputs: int, *, seed: int, scale: float = 0.1, embedder: str | None = None) -> Head:
    """A linear head with normal weights; inputs up to one."""
    rng = np.random.default_rng(seed)
    linear = Linear(scale * rng.normal(size=(outputs, features)), 0.1 * rng.normal(size=outputs))
    labels = [f"class {k}" for k in range(outputs)]
    return Head([linear], labels=labels, input_bound=1.0, embedder=embedder)


def random_inputs(contract: InputContract, count: int, *, seed: int) -> NDArray[np.float64]:
    """Rows (count, d) that keep a contract without a norm."""
    return np.random.default_rng(seed).uniform(-contract.bound, contract.bound, (count, contract.features))


def dataplane(name: str, head: Head, privacy: Privacy = Privacy.BOTH_PRIVATE) -> Dataplane:
    """A server without its sockets, which serves one head."""
    model = ServedModel.compile(name, head, Policy(privacy=privacy))
    return Dataplane(Registry({name: model}, {}), BlindPool(1 << 26, per_key=0))


def offered(server: Dataplane, name: str = "m") -> CoefficientPlan:
    """The plan of `Case` for that server's model, among those it offers."""
    model = server.registry.get(name)
    plan = Case.of(model.head, model.policy.privacy).plan
    assert bytes.fromhex(plan.digest) in model.offered
    return plan


@dataclass(frozen=True)
class Served:
    """A server process of its own on loopback, and the one model it serves both-private."""

    address: str
    model: str
    head: Head


def call(address: str, service: type, method: str, request: Any) -> Any:
    """One handmade call; a status comes back as the catalogued error it carries."""
    with grpc.insecure_channel(address) as channel:
        return transport.call(address, 10, lambda: getattr(service(channel), method)(request, timeout=10))


def upload(address: str, model: str, plan: CoefficientPlan, data: bytes) -> Any:
    """Upload `data` where a public key is expected."""
    header = keys_pb2.KeyHeader(
        model=model,
        plan_digest=bytes.fromhex(plan.digest),
        key_digest=hashlib.sha256(data).digest(),
        size=len(data),
    )
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)] or [b""]
    messages = [keys_pb2.UploadKeysRequest(header=None if i else header, chunk=c) for i, c in enumerate(chunks)]
    return call(address, keys_pb2_grpc.KeyServiceStub, "UploadKeys", iter(messages))


@dataclass(frozen=True)
class Case:
    """One head under one plan, with both sides' means."""

    linear: Linear
    plan: CoefficientPlan

    @classmethod
    def of(cls, head: Head, privacy: Privacy, **changes: object) -> Case:
        """The plan with one prime in the smallest ring that has one, with fields changed.

        The attacks compute in that ring. A server offers it too where a test asks one.
        """
        linear = head.as_linear()
        assert linear is not None
        tried = planner.explore(linear, head.contract, privacy=privacy)
        plans = [found.plan for found in tried if found.plan and len(found.plan.parameters.data_primes) == 1]
        return cls(linear, replace(min(plans, key=lambda plan: plan.parameters.degree), **changes))

    # The server.

    @cached_property
    def ring(self) -> seal.Ring:
        return seal.ring(self.plan.parameters)

    @cached_property
    def evaluator(self) -> LinearEvaluator:
        return LinearEvaluator(self.linear, self.plan)

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """The integers (K, d) that the server multiplies by: what an adversary wants."""
        return integer_weights(self.linear, self.plan.weight_scale)

    def weight_positions(self, product: int = 0) -> NDArray[np.int64]:
        """Coefficients (rows, d) of a product's polynomial that hold those weights."""
        plan = self.plan
        ends = np.array([plan.position(t) for t in range(len(plan.rows(product)))])
        return ends[:, None] - np.arange(plan.features)

    def blinder(self, flood: float | None = None) -> Blinder:
        """The server's blinder, with another flood (in logits) where one is given."""
        return blinder_of(self.plan if flood is None else replace(self.plan, flood=flood), self.upload)

    # The key holder.

    @cached_property
    def key(self) -> SecretKey:
        return SecretKey(self.plan.parameters)

    @cached_property
    def upload(self) -> bytes:
        """The key material as it travels: the public key."""
        return self.key.upload(self.plan).data

    @cached_property
    def secret(self) -> NDArray[np.int8]:
        """The secret polynomial (N,), read off the matrix that decrypts answers."""
        return secret_polynomial(self.plan, self.key)

    @cached_property
    def _secret_plaintext(self) -> seal.Plaintext:
        return self.ring.plaintext(self.secret.astype(np.int64))

    def query(self, x: NDArray[np.float64]) -> seal.Ciphertext:
        """The one ciphertext of a query, as the server loads it."""
        (ciphertext,) = load_query(self.plan, [self.key.encrypt(p) for p in pack_input(self.plan, x)])
        return ciphertext

    def phase(self, ciphertext: seal.Ciphertext) -> NDArray[np.int64]:
        """c0 + c1·s of a single-prime ciphertext: message and noise together, centred, exact (N,)."""
        by_secret = self.ring.residues(self.ring.multiply(ciphertext, self._secret_plaintext))[1]
        total = add(self.ring.residues(ciphertext)[0], by_secret, self.plan.parameters.data_primes)
        return self.centred(self.ring.coefficients(total))

    def centred(self, residues: Residues) -> NDArray[np.int64]:
        """Residues modulo the first prime as integers around zero."""
        values = residues.reshape(-1).astype(np.int64)
        return np.where(values > self.plan.first_prime // 2, values - self.plan.first_prime, values)

    def read(self, answers: list[bytes]) -> NDArray[np.float64]:
        return read_answer(self.plan, self.key.rows(self.plan), answers)

    def c1_of(self, answer: bytes) -> Residues:
        """c1 of a product's answer as it was sent, modulo `answer_modulus`."""
        return answer_values(self.plan, answer)[self.plan.padded_answers :]


def blinder_of(plan: CoefficientPlan, upload: bytes) -> Blinder:
    """The blinder that a server makes of uploaded key material."""
    public = keymaterial.parse(plan, upload).public
    assert public is not None
    return Blinder(plan, public)


def answer_values(plan: CoefficientPlan, answer: bytes) -> Residues:
    """Everything a product's answer holds: the coefficients of c0 that left, then those of c1."""
    return unpack(answer, plan.padded_answers + plan.parameters.degree, plan.answer_width, "answer")


def secret_polynomial(plan: CoefficientPlan, key: SecretKey) -> NDArray[np.int8]:
    """The key's ternary coefficients (N,): row 0 of its matrix holds s_(p-j), negated where p - j wrapped around."""
    degree, position = plan.parameters.degree, plan.position(0)
    index = position - np.arange(degree)
    secret = np.empty(degree, np.int8)
    secret[index % degree] = np.where(index >= 0, 1, -1) * key.rows(plan)[0]
    return secret


def divide(ring: seal.Ring, dividend: Residues, divisor: Residues) -> NDArray[np.int64]:
    """dividend / divisor in the ring, for NTT residues (1, N) modulo its one prime; centred coefficients (N,)."""
    (prime,) = ring.parameters.data_primes
    quotient = [a * pow(b, -1, prime) % prime for a, b in zip(dividend[0].tolist(), divisor[0].tolist(), strict=True)]
    values = ring.coefficients(np.array([quotient], np.uint64))[0].astype(np.int64)
    return np.where(values > prime // 2, values - prime, values)


def uniformity(values: NDArray[np.generic], modulus: int, bins: int) -> float:
    """p-value of the chi-square test that integers modulo `modulus` are uniform, in bins of equal width."""
    index = np.floor(values.astype(np.float64) / modulus * bins).astype(np.int64) % bins
    return float(stats.chisquare(np.bincount(index.reshape(-1), minlength=bins)).pvalue)


def agreement(found: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """How far `found` takes the signs of `truth`: sum of sign(truth)·found over |found|.

    About 0.8 times the root of their number when found = truth is normal. When found is independent of truth and
    symmetric it is sub-Gaussian with variance one (Hoeffding): beyond t with probability below 2 exp(-t²/2).
    """
    values = found.astype(np.float64)
    return float((np.sign(truth) * values).sum() / np.linalg.norm(values))
