"""No file, of memory or not, ever holds the secret key or what a switching key is for.

Everything that SEAL loads or saves is recorded while keys are made, inputs encrypted and answers read, once with residues
copied from memory and once as on platforms where they are saved. A planted copy of each form is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ckks.batch.pair import BatchPair, in_ball
from ckks.slots.pair import contract, network, smallest
from secure_infer.ckks import coefficient, seal, sealio, slots
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.batch import planner as batch_planner
from secure_infer.ckks.batch.keys import targets
from secure_infer.ckks.batch.uniform import expand
from secure_infer.ckks.coefficient import planner as coefficient_planner
from secure_infer.ckks.memoryfile import KeptFile, MemoryFile
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.residues import reduce, unpack_residues
from secure_infer.ckks.slots.planner import Demand, Planner
from secure_infer.errors import AnswerRefused, InternalFault
from secure_infer_client.keys import SecretKey
from shared import linear_head, unit_rows

WINDOW = 64
"""Words that are looked for at a time."""

FEATURES = 4


class Files:
    """What went through files: streams written for SEAL to load, bodies of those that SEAL saved."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def holds(self, words: np.ndarray) -> bool:
        """Whether any of three windows of the words is somewhere."""
        starts = (0, (len(words) - WINDOW) // 2, len(words) - WINDOW)
        windows = [words[start : start + WINDOW].astype("<u8").tobytes() for start in starts]
        return any(window in content for content in self.contents for window in windows)


@pytest.fixture(params=["from memory", "by save"])
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Files:
    seen, saved = Files(), sealio.saved
    if request.param == "by save":
        monkeypatch.setattr(sealio, "_reader", lambda: sealio._words_by_save)
        monkeypatch.setattr(sealio, "file_for", lambda size: MemoryFile(in_memory=False))

    def recorded(write: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
        def record(file: Any, data: bytes) -> None:
            seen.contents.append(bytes(data))
            write(file, data)

        return record

    def record_saved(value: Any) -> bytes:
        data = saved(value)
        seen.contents.append(sealio.body(data))
        return data

    for kind in (MemoryFile, KeptFile):
        monkeypatch.setattr(kind, "write", recorded(kind.write))
    monkeypatch.setattr(sealio, "saved", record_saved)
    return seen


def forms(key: SecretKey) -> dict[str, np.ndarray]:
    """Words of the secret and of each target, as coefficients and in NTT form, modulo each prime."""
    ring, primes = seal.ring(key.parameters), key.parameters.data_primes
    own = key.polynomial().astype(np.int64)
    found = {}
    for name, polynomial in zip(("s", "s²", "σ(s)", "σ(s)²", "s·σ(s)"), (own, *targets(own)), strict=True):
        found[f"{name}, signed"] = polynomial.view(np.uint64)
        for kind, residues in (("coefficients", reduce(polynomial, primes)), ("NTT form", ring.ntt(polynomial))):
            found |= {f"{name}, {kind} modulo {p}": row for p, row in zip(primes, residues, strict=True)}
    return found


def leaked(files: Files, key: SecretKey) -> set[str]:
    """Names of the forms that files held until now."""
    before = Files()
    before.contents = list(files.contents)  # computing the forms writes them
    return {name for name, words in forms(key).items() if before.holds(words)}


def query(plan: QueryPlan, polynomials: np.ndarray) -> SecretKey:
    """A client's side of a query; its answers are zeros, which may be refused."""
    key = SecretKey(plan.parameters)
    assert len(key.upload(plan).data) == plan.key_bytes
    key.prepare()
    for polynomial in polynomials:
        key.encrypt(polynomial)
    try:
        read_answer(plan, key.rows(plan), [bytes(plan.product_bytes)] * plan.products)
    except AnswerRefused as refusal:
        assert "range" in refusal.message
    return key


def coefficient_session() -> SecretKey:
    head = linear_head(FEATURES, 2)
    linear = head.as_linear()
    assert linear is not None
    plan = coefficient_planner.choose(linear, head.contract)
    return query(plan, coefficient.pack_input(plan, unit_rows(1, FEATURES)[0]))


def slot_session() -> SecretKey:
    plan = smallest(Planner(network((FEATURES, 2, 2)), contract(FEATURES)), Demand()).plan
    assert plan.relinearisation
    return query(plan, slots.pack_input(plan, unit_rows(1, FEATURES)[0]))


def batch_session(widths: tuple[int, ...]) -> SecretKey:
    both = BatchPair(batch_planner.choose(network(widths), contract(FEATURES)))
    assert bool(both.plan.part_keys) == (len(widths) > 2)
    both(in_ball(3, FEATURES, 1.0))
    return both.key


@pytest.mark.parametrize(
    "session",
    [
        coefficient_session,
        slot_session,
        pytest.param(lambda: batch_session((FEATURES, 2)), id="affine_batch_session"),
        pytest.param(lambda: batch_session((FEATURES, 2, 2)), id="quadratic_batch_session"),
    ],
)
def test_no_file_holds_the_secret(files: Files, session: Callable[[], SecretKey]) -> None:
    key = session()
    assert len(files.contents) > 3
    assert not leaked(files, key)
    key.destroy()


@pytest.fixture
def parameters() -> Parameters:
    return seal.parameters(8192, (40, 40), 40)


def test_every_planted_form_is_found(files: Files, parameters: Parameters) -> None:
    key, ring = SecretKey(parameters), seal.ring(parameters)
    own = key.polynomial().astype(np.int64)
    assert not leaked(files, key)
    for polynomial in (own, *targets(own)):
        ring.plaintext(polynomial)
    found = leaked(files, key)
    assert found >= {name for name in forms(key) if "signed" not in name}


def test_a_saved_key_is_found(files: Files, parameters: Parameters) -> None:
    key = SecretKey(parameters)
    sealio.saved(key._key)
    assert leaked(files, key) == {f"s, NTT form modulo {p}" for p in parameters.data_primes}


def test_switching_targets_reach_ntt_form_exactly() -> None:
    for parameters in (seal.parameters(4096, (53,)), seal.parameters(32768, (60, 60), 60)):
        key, ring = SecretKey(parameters), seal.ring(parameters)
        ones = np.ones(parameters.degree, np.int8)  # its square has the largest coefficients of all
        for target in (*targets(key.polynomial()), *targets(ones)):
            assert np.array_equal(key._ntt(target), ring.ntt(target))


def test_batch_encryptions_decrypt_to_their_input(parameters: Parameters) -> None:
    key, ring, primes = SecretKey(parameters), seal.ring(parameters), parameters.data_primes
    polynomial = np.random.default_rng(0).integers(-(2**38), 2**38, parameters.degree)
    sent = key.encrypt_batch(polynomial)
    c0 = unpack_residues(sent[: -sealio.SEED_BYTES], parameters.degree, primes, "ciphertext")
    both = np.stack([c0, expand(sent[-sealio.SEED_BYTES :], primes, parameters.degree)])
    by_secret = ring.residues(ring.multiply(ring.load(both), ring.plaintext(key.polynomial().astype(np.int64))))[1]
    phase = ring.coefficients((both[0] + by_secret) % np.array(primes, np.uint64)[:, None])
    noise = (phase - reduce(polynomial, primes)).astype(np.int64)
    for row, prime in zip(noise, primes, strict=True):
        assert np.abs((row + prime // 2) % prime - prime // 2).max() < 64


def test_a_destroyed_key_does_nothing(parameters: Parameters) -> None:
    key = SecretKey(parameters)
    zeros = np.zeros(parameters.degree, np.int64)
    key.encrypt_batch(zeros)
    key.destroy()
    held = [value for value in vars(key).values() if type(value).__module__.endswith("sealapi_cpp")]
    assert held == []
    for use in (key.polynomial, lambda: key.encrypt(zeros), lambda: key.encrypt_batch(zeros)):
        with pytest.raises(InternalFault):
            use()
