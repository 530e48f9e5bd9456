"""Claims of the batch plan: a batch's answers hide the weights from a key holder who made its public key honestly.

Adversary: the key holder, who knows its own ciphertexts and their noise; then the server, who sees ciphertexts.
Unprotected variants: answers without a blind, a flood of two smudging bits, and a forged public key, against which this
plan claims nothing: every coefficient of a batch's answers is sent, so that a forged key reads a blind whole.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
from adversary import CHANCE, SIGMAS, agreement, random_head, uniformity
from numpy.typing import NDArray

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.batch.affine import AffineProgram
from secure_infer.ckks.batch.blinding import BatchBlinder
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer.ckks.batch.uniform import expand
from secure_infer.ckks.plan import DEFAULT_SMUDGING, NOISE, Privacy
from secure_infer.ckks.residues import Residues, add, pack_residues, unpack
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.heads.split import private_network
from secure_infer_client.keys import SecretKey

HEAD = random_head(8, 3, seed=21)


class Batch:
    """One head's batch plan with both sides' means. Answers are sent exactly: no rounding helps to hide anything."""

    def __init__(self, privacy: Privacy = Privacy.BOTH_PRIVATE) -> None:
        found = choose(private_network(HEAD), HEAD.contract, privacy=privacy)
        assert isinstance(found, AffineProgram)
        self.program = replace(found, plan=replace(found.plan, answer_bits=0))
        self.plan, self.weights = self.program.plan, self.program.weights
        assert len(self.plan.parameters.data_primes) == 1
        self.key, self.ring = SecretKey(self.plan.parameters), seal.ring(self.plan.parameters)

    @cached_property
    def secret(self) -> NDArray[np.int8]:
        return self.key.polynomial()

    def query(self, rows: NDArray[np.float64]) -> list[Residues]:
        return [read_ciphertext(self.plan, self.key.encrypt_batch(p)) for p in pack_batch(self.plan, rows)]

    def blinder(self, key: bytes, flood: float | None = None) -> BatchBlinder:
        """The server's, of uploaded key material; with another flood (in logits) where one is given."""
        public = keymaterial.parse(self.plan, key).public
        assert public is not None
        return BatchBlinder(self.plan if flood is None else replace(self.plan, flood=flood), public)

    def answers(self, query: list[Residues], blinder: BatchBlinder | None) -> list[bytes]:
        evaluation = self.program.evaluation()
        for ciphertext in query:
            evaluation.add(ciphertext)
        blind = None if blinder is None else blinder.residues
        return [answer for answer in evaluation.answers(blind) if answer is not None]

    def halves(self, answer: bytes) -> Residues:
        """Both halves (2, N) of an exact answer."""
        return unpack(answer, 2 * self.plan.records, self.plan.answer_width, "answer").reshape(2, -1)

    def phase(self, ciphertext: Residues) -> NDArray[np.int64]:
        """Message and noise of a ciphertext (2, 1, N) in NTT form; centred (N,)."""
        by_secret = self.ring.multiply(self.ring.load(ciphertext), self.ring.plaintext(self.secret.astype(np.int64)))
        total = add(ciphertext[0], self.ring.residues(by_secret)[1], self.plan.parameters.data_primes)
        return self.centred(self.ring.coefficients(total)[0])

    def centred(self, residues: Residues) -> NDArray[np.int64]:
        values = residues.astype(np.int64)
        return np.where(values > self.plan.first_prime // 2, values - self.plan.first_prime, values)


def solved(matrix: list[list[int]], values: list[int], prime: int) -> list[int]:
    """The solution of a square system modulo a prime, centred."""
    rows = [[*row, value] for row, value in zip(matrix, values, strict=True)]
    for at in range(len(rows)):
        pivot = next(i for i in range(at, len(rows)) if rows[i][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        inverse = pow(rows[at][at], -1, prime)
        rows[at] = [value * inverse % prime for value in rows[at]]
        for i, row in enumerate(rows):
            if i != at:
                rows[i] = [(a - row[at] * b) % prime for a, b in zip(row, rows[at], strict=True)]
    return [value - prime if (value := row[-1]) > prime // 2 else value for row in rows]


def divided(batch: Batch, blinder: BatchBlinder | None) -> NDArray[np.int64]:
    """Weights (K, d) from one batch: c1' of an answer is the weights' sum of the c1 that the key holder sent."""
    query = batch.query(np.zeros((1, 8)))
    sent = np.stack([batch.ring.coefficients(ciphertext[1])[0] for ciphertext in query])
    matrix = [[int(value) for value in sent[:, place]] for place in range(8)]
    return np.array(
        [
            solved(matrix, [int(v) for v in batch.halves(answer)[1, :8]], batch.plan.first_prime)
            for answer in batch.answers(query, blinder)
        ]
    )


def test_an_unblinded_batch_gives_every_weight() -> None:
    batch = Batch(Privacy.INPUT_PRIVATE)
    assert np.array_equal(divided(batch, None), batch.weights)


def test_the_blind_leaves_nothing_to_divide() -> None:
    batch = Batch()
    found = divided(batch, batch.blinder(batch.key.upload(batch.plan).data))
    assert abs(agreement(found, batch.weights)) < SIGMAS
    assert np.abs(found).min() > 2**20  # of a modulus of 2^52: nowhere near


def regressed(batch: Batch, flood: float, batches: int) -> NDArray[np.float64]:
    """Weights (K, d) by least squares: every record's noise is the weights' sum of noise that the key holder knows."""
    blinder = batch.blinder(batch.key.upload(batch.plan).data, flood)
    rows, noise = [], []
    for _ in range(batches):
        query = batch.query(np.zeros((1, 8)))
        answers = batch.answers(query, blinder)
        logits = read_batch(batch.plan, batch.secret, answers, batch.plan.records)
        rows.append(np.stack([batch.phase(ciphertext) for ciphertext in query], axis=1))
        noise.append((logits - logits.mean(axis=0)) * batch.plan.unit)
    return np.linalg.lstsq(np.concatenate(rows).astype(np.float64), np.concatenate(noise), rcond=None)[0].T


def flood_for(batch: Batch, bits: int) -> float:
    norm = np.linalg.norm(batch.weights.astype(np.float64), axis=1).max()
    return float(2.0**bits * NOISE * norm / batch.plan.unit)


def test_two_smudging_bits_give_the_weights_after_a_batch() -> None:
    """2,048 records are 2,048 equations: 2^2 of flood is left as 2^2 / sqrt(2048) = 0.09 of a weight. Hence the label."""
    batch = Batch()
    found = regressed(batch, flood_for(batch, 2), 2)
    assert np.linalg.norm(found - batch.weights) < 0.3 * np.linalg.norm(batch.weights)
    assert agreement(found.ravel(), batch.weights.ravel()) > 0.7 * np.sqrt(batch.weights.size)


def test_the_plans_flood_stops_the_regression() -> None:
    batch = Batch()
    assert batch.plan.smudging_bits >= DEFAULT_SMUDGING
    found = regressed(batch, batch.plan.flood, 4)
    assert abs(agreement(found.ravel(), batch.weights.ravel())) < SIGMAS
    assert np.linalg.norm(found) > 500 * np.linalg.norm(batch.weights)


# A forged public key: the documented limit.


def forged(batch: Batch) -> tuple[bytes, int]:
    """(key, B): pk0 = B - pk1·s, so that what decrypts of a zero encryption is B·u and small noise."""
    flood = batch.plan.flood * batch.plan.blind_unit
    base, primes, degree = 1 << int(np.ceil(np.log2(24 * flood))), batch.plan.parameters.data_primes, batch.plan.records
    honest = batch.key.upload(batch.plan).data
    material = keymaterial.parse(batch.plan, honest)
    assert material.public is not None
    lift = batch.ring.ntt(np.array([base] + [0] * (degree - 1), np.int64))
    return pack_residues(add(material.public[0], lift, primes), primes) + honest[-SEED_BYTES:], base


def taken_apart(batch: Batch, key: bytes, base: int) -> tuple[float, float]:
    """(share of u that is read as -1 or 1, how far c1' without pk1·u is from the weights' sum of c1): from one answer."""
    blind = batch.blinder(key).residues()
    # u itself is the server's; it is read here to check what the key holder found.
    query = batch.query(np.zeros((1, 8)))
    evaluation = batch.program.evaluation()
    for ciphertext in query:
        evaluation.add(ciphertext)
    answer = next(a for a in evaluation.answers(lambda: blind.copy()) if a is not None)
    halves = batch.halves(answer)
    whole = np.stack([batch.ring.ntt_residues(half[None]) for half in halves])
    value = batch.phase(whole)
    u = np.rint((value - np.median(value)) / base)
    pk1 = seal_expanded(batch, key)
    removed = np.zeros_like(pk1)
    if u.any():
        small = batch.ring.plaintext(np.clip(u, -1, 1).astype(np.int64))
        removed = batch.ring.residues(batch.ring.multiply(batch.ring.load(np.stack([pk1, pk1])), small))[0]
    minus = (np.uint64(batch.plan.first_prime) - removed) % np.uint64(batch.plan.first_prime)
    rest = add(whole[1], minus, batch.plan.parameters.data_primes)
    own = np.zeros_like(rest)
    for weight, ciphertext in zip(batch.weights[0].tolist(), query, strict=True):
        times = np.array([[int(v) * weight % batch.plan.first_prime for v in ciphertext[1, 0]]], np.uint64)
        own = add(own, times, batch.plan.parameters.data_primes)
    left = add(rest, np.uint64(batch.plan.first_prime) - own, batch.plan.parameters.data_primes)
    residual = batch.centred(batch.ring.coefficients(left)[0])
    return float((np.abs(u) == 1).mean()), float(np.abs(residual).max())


def seal_expanded(batch: Batch, key: bytes) -> Residues:
    """pk1, which everybody can expand from the key's seed."""
    return batch.ring.residues(batch.ring.expand(np.ones((1, batch.plan.records), np.uint64), key[-SEED_BYTES:]))[1]


def test_a_forged_public_key_reads_the_whole_blind() -> None:
    """What is left of c1' is the weights' sum and noise below 21: equations that few weights fit, so the model is given
    away. Single queries send one coefficient a logit, and cap what this gains: `test_attack_public_key.py`."""
    batch = Batch()
    share, residual = taken_apart(batch, *forged(batch))
    assert 0.6 < share < 0.73  # u is uniform over -1, 0, 1
    assert residual <= 21


def test_an_honest_public_key_reads_nothing_of_it() -> None:
    batch = Batch()
    _, base = forged(batch)
    _, residual = taken_apart(batch, batch.key.upload(batch.plan).data, base)
    assert residual > batch.plan.first_prime / 4


# The server.


def test_no_two_encryptions_share_a_mask_nor_does_a_fork() -> None:
    batch = Batch()
    polynomial = next(iter(pack_batch(batch.plan, np.ones((1, 8)))))
    batch.key.encrypt_batch(polynomial)  # whatever is kept, is kept now
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, batch.key.encrypt_batch(polynomial))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        made = [pipe.read(), *(batch.key.encrypt_batch(polynomial) for _ in range(3))]
    assert os.waitpid(child, 0)[1] == 0
    assert len({data[-SEED_BYTES:] for data in made}) == 4
    primes, degree = batch.plan.parameters.data_primes, batch.plan.records
    phases = [batch.phase(read_ciphertext(batch.plan, data)) for data in made]
    assert len({phase.tobytes() for phase in phases}) == 4  # fresh noise as well
    assert all(np.abs(phase - polynomial).max() <= 21 for phase in phases)
    for data in made:
        ciphertext = read_ciphertext(batch.plan, data)
        assert np.array_equal(ciphertext[1], expand(data[-SEED_BYTES:], primes, degree))
        assert uniformity(batch.ring.coefficients(ciphertext[0])[0], primes[0], 64) > CHANCE


def test_a_plaintext_without_its_mask_is_not_uniform() -> None:
    """So the test above would see it."""
    batch = Batch()
    polynomial = next(iter(pack_batch(batch.plan, np.ones((1, 8)))))
    assert uniformity(polynomial % batch.plan.first_prime, batch.plan.first_prime, 64) < CHANCE


@pytest.mark.parametrize("privacy", list(Privacy))
def test_what_is_sent_holds_no_form_of_the_secret(privacy: Privacy) -> None:
    batch = Batch(privacy)
    sent = batch.key.upload(batch.plan).data
    sent += b"".join(batch.key.encrypt_batch(p) for p in pack_batch(batch.plan, np.ones((1, 8))))
    ntt = batch.ring.ntt(batch.secret.astype(np.int64))
    forms = [batch.secret.tobytes(), batch.secret.astype("<i8").tobytes(), ntt.astype("<u8").tobytes()]
    forms.append(pack_residues(ntt, batch.plan.parameters.data_primes))
    for form in forms:
        pieces = [form[i : i + 64] for i in range(0, len(form), 64)]
        assert not any(piece in sent for piece in pieces if len(set(piece)) > 1)
        assert all(piece in sent + form for piece in pieces)  # the search would find it
