"""Claim: a key holder who forges its public key gains at most a small, capped share of one zero encryption.

Adversary: the key holder. The zero encryption under (pk0, pk1) is (pk0·u + e0, pk1·u + e1): with pk1 = 0 it hides
nothing, and pk0 = B (1 + 3 X + 9 X² + ...) writes ternary digits of u into every answer.
Unprotected variants: a server that loads a full key and a full query as they are; a packing without the cap.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as sealapi
from adversary import CHANCE, Case, blinder_of, dataplane, offered, random_head, uniformity

import secure_infer
from secure_infer.ckks import seal, sealio
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import centred, pack_residues, residue_bytes
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import MalformedRequest, PlanRefused
from secure_infer.heads import Head
from secure_infer.v1 import keys_pb2
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import Dataplane
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.memory import MemoryBackend
from secure_infer_server.keys.service import KeyCalls
from secure_infer_server.keys.vault import KeyVault, load_client_keys

HEAD = random_head(16, 8, seed=6)
MANY = random_head(8, 200, seed=7)
CAP = 0.05
"""The share of u that is claimed to be the most."""

VAULT = KeyVault(MemoryBackend(KeyLimits()), load_client_keys, 1 << 26)

SHIPPED = [(Path(secure_infer.__file__).parent / "models" / "icd10-chapter-linear.head")]
HEADS = {"384-21": random_head(384, 21, seed=8, scale=0.05), "8-200": MANY} | {f.stem: Head.load(f) for f in SHIPPED}


def store(server: Dataplane, plan: CoefficientPlan, key: bytes) -> bytes:
    calls = KeyCalls(VAULT, lambda name, digest: server.registry.get(name).plan(digest), lambda *_: None)
    header = keys_pb2.KeyHeader(
        model="m", plan_digest=bytes.fromhex(plan.digest), key_digest=hashlib.sha256(key).digest(), size=len(key)
    )
    receiving = calls.receive("", header)
    receiving.take(keys_pb2.UploadKeysRequest(header=header, chunk=key))
    return receiving.finish().key_digest


# A chosen uniform half.


def test_pk1_of_zero_would_give_every_weight() -> None:
    """Full forms, loaded as they are: c1' = w·c1 + 0·u + e1, and c1 = 2^30 puts w above e1, where no flood is."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    ring, degree = case.ring, case.plan.parameters.degree
    key = np.zeros((2, 1, degree), np.uint64)
    key[0] = 1
    public = sealio.load(sealapi.PublicKey(), ring.context, sealio.ciphertext(ring.key_level, key))
    total = ring.encrypt_zero(sealapi.Encryptor(ring.context, public))
    query = np.zeros((2, 1, degree), np.uint64)
    query[1] = 1 << 30
    ring.add_to(total, ring.multiply(ring.load(query), case.evaluator._products[0][0]))
    found = np.rint(case.centred(ring.finish(total)[1]) / 2.0**30).astype(np.int64)
    assert np.array_equal(found[case.weight_positions()], case.weights)


def test_a_full_key_is_refused() -> None:
    server = dataplane("m", HEAD)
    plan = offered(server)
    honest = SecretKey(plan.parameters).upload(plan).data
    halves = honest[:-SEED_BYTES] + bytes(residue_bytes(plan.parameters.degree, plan.parameters.primes))
    full = sealio.ciphertext(seal.ring(plan.parameters).key_level, np.zeros((2, 1, plan.parameters.degree), np.uint64))
    for forged in (halves, full, honest[:-SEED_BYTES], honest + bytes(1)):
        with pytest.raises(MalformedRequest, match="expected 14400 bytes"):
            store(server, plan, forged)
    assert store(server, plan, honest) == hashlib.sha256(honest).digest()


@pytest.mark.parametrize("seed", [bytes(SEED_BYTES), b"\xff" * SEED_BYTES], ids=["zeros", "ones"])
def test_no_seed_makes_a_chosen_uniform_half(seed: bytes) -> None:
    """Whatever stands where the seed is expected, the half that hides c1 is expanded from it, and uniform."""
    case = Case.of(HEAD, Privacy.BOTH_PRIVATE)
    key = pack_residues(np.zeros((1, case.plan.parameters.degree), np.uint64), case.plan.parameters.primes) + seed
    blinds = np.stack([blinder_of(case.plan, key).residues() for _ in range(8)])
    assert uniformity(case.ring.coefficients(blinds[0, 1]), case.plan.first_prime, 64) > CHANCE
    assert uniformity(blinds[:, 1], case.plan.first_prime, 256) > CHANCE


@pytest.mark.parametrize(("degree", "bits"), [(2048, (52,)), (4096, (60,)), (4096, (33, 33))])
def test_a_key_of_other_parameters_is_refused(degree: int, bits: tuple[int, ...]) -> None:
    server = dataplane("m", HEAD)
    plan = offered(server)
    other = seal.parameters(degree, bits, None if len(bits) == 1 else 20)
    with pytest.raises(MalformedRequest, match="public key: expected 14400 bytes"):
        store(server, plan, SecretKey(other).upload(replace(plan, parameters=other)).data)


def test_residues_beyond_the_prime_are_refused() -> None:
    server = dataplane("m", HEAD)
    plan = offered(server)
    honest = SecretKey(plan.parameters).upload(plan).data
    with pytest.raises(MalformedRequest, match="not below their prime"):
        store(server, plan, b"\xff" * 7 + honest[7:])


# A chosen other half.


def forge(plan: CoefficientPlan) -> tuple[bytes, int, int]:
    """(key, B, J): pk0 = B·(1 + 3X + ... + (3X)^(J-1)), seed genuine; B = 12 sigma of the flood, J as many as fit."""
    flood = plan.flood * plan.input_scale * plan.weight_scale
    base = math.ceil(12 * flood)
    digits = int(math.log(plan.first_prime / base, 3))
    pk0 = np.zeros((1, plan.parameters.degree), np.uint64)
    pk0[0, :digits] = [base * 3**j for j in range(digits)]
    seed = SecretKey(plan.parameters).upload(plan).data[-SEED_BYTES:]
    key = pack_residues(seal.ring(plan.parameters).ntt_residues(pk0), plan.parameters.primes) + seed
    return key, base, digits


def balanced_digits(value: int, count: int) -> list[int]:
    """`count` digits -1, 0, 1 of value = sum d_j 3^j."""
    digits = []
    for _ in range(count):
        digit = (value + 1) % 3 - 1
        digits.append(digit)
        value = (value - digit) // 3
    return digits


def stolen_share(plan: CoefficientPlan) -> float:
    """Share of u that the answers of one zero encryption gave to a forged key; all of it is checked to be right."""
    key, base, digits = forge(plan)
    prime, degree, ring = plan.first_prime, plan.parameters.degree, seal.ring(plan.parameters)
    coefficients = ring.coefficients(blinder_of(plan, key).residues()[0])[0].tolist()

    def read(position: int) -> dict[int, int]:
        value = balanced_digits(round(centred(coefficients[position], prime) / base), digits)
        return {position - j: digit for j, digit in enumerate(value) if position >= j}

    answers = [plan.position(t) for t in range(plan.answers_per_product)]
    stolen: dict[int, int] = {}
    for position in answers:
        stolen |= read(position)
    # The server's view: u_i is the lowest digit at i, or the next one at i + 1 where i is flooded.
    flooded = set(answers)
    for i, digit in stolen.items():
        truth = read(i)[i] if i not in flooded else read((i + 1) % degree).get(i, digit)
        assert truth == digit
    return len(stolen) / degree


def single_prime_plan(head: Head) -> CoefficientPlan:
    plan = Case.of(head, Privacy.BOTH_PRIVATE).plan
    assert plan.parameters.special_prime is None
    return plan


def test_a_forged_pk0_is_accepted() -> None:
    """It cannot be told from an honest one: hence the cap."""
    server = dataplane("m", MANY)
    plan = offered(server)
    store(server, plan, forge(plan)[0])


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_forged_pk0_reads_less_than_the_capped_share(head: Head) -> None:
    assert 0 < stolen_share(single_prime_plan(head)) <= CAP


def test_an_uncapped_packing_would_give_most_of_it() -> None:
    plan = single_prime_plan(MANY)
    uncapped = replace(plan, answers_per_product=plan.parameters.degree // plan.features)
    assert stolen_share(uncapped) > 10 * CAP
    with pytest.raises(PlanRefused, match="forged public key"):
        uncapped.check()
