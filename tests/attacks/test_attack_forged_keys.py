"""Limit: forged switching keys read what an evaluation holds before its end, whatever the flood and the public key.

Adversary: the key holder, whose public key is honest and whose key for s² is one for s² + 1 instead. The third part of a
product, which decryption multiplies by s², is then added to the answer in the clear: with slots in the few coefficients
that leave, with batches in all of them. It is a function of the weights and of uniform halves that the key holder knows,
so that it confirms a guess of the model at once, and N equations of 15 bits are more than a small model has unknowns.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray
from test_attack_hidden import CASE

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.batch.blinding import BatchBlinder
from secure_infer.ckks.batch.keys import switching_key, targets
from secure_infer.ckks.batch.packing import negacyclic, pack_batch
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.batch.quadratic import QuadraticProgram
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.keymaterial import KeyMaterial
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.ckks.residues import unpack
from secure_infer.ckks.sealio import SwitchingKey
from secure_infer.ckks.slots import pack_input
from secure_infer.errors import AnswerRefused
from secure_infer.heads.split import private_network
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import load_query
from shared import hidden_head


def forged(key: SecretKey, plan: Plan) -> bytes:
    """The key holder's material, honest but for the key of s²."""
    ring, honest = seal.ring(plan.parameters), key._material(plan)
    target = targets(key.polynomial())[0]
    target[0] += 1
    zeros = [key._key_level_zero() for _ in plan.parameters.data_primes]
    other: SwitchingKey = switching_key(plan.parameters, ring.ntt(target), zeros)
    relinearisation = other if plan.relinearisation else honest.relinearisation
    parts = [other, *honest.parts[1:]] if plan.part_keys else honest.parts
    return keymaterial.pack(plan, KeyMaterial(honest.public, honest.automorphisms, relinearisation, parts))


def remainder(values: NDArray[np.float64], modulus: float) -> NDArray[np.float64]:
    return np.asarray((values + modulus / 2) % modulus - modulus / 2)


def test_a_forged_switching_key_reads_every_coefficient_of_a_batch() -> None:
    head = hidden_head((4, 3, 1))
    program = choose(private_network(head), head.contract, privacy=Privacy.BOTH_PRIVATE)
    assert isinstance(program, QuadraticProgram)
    plan, key = program.plan, SecretKey(program.plan.parameters)
    ring, primes = seal.ring(plan.parameters), plan.parameters.data_primes
    query = [read_ciphertext(plan, key.encrypt_batch(p)) for p in pack_batch(plan, np.zeros((1, 4)))]

    def phase(data: bytes) -> NDArray[np.float64]:
        """What decrypts, a coefficient in logits."""
        material = keymaterial.parse(plan, data)
        assert material.public is not None
        evaluation = program.evaluation()
        for ciphertext in query:
            evaluation.add(ciphertext)
        keys = keymaterial.load(plan, material).parts
        answers = evaluation.answers(BatchBlinder(plan, material.public).residues, keys)
        answer = next(answer for answer in answers if answer is not None)
        c0, c1 = unpack(answer, 2 * plan.records, plan.answer_width, "answer").astype(np.int64).reshape(2, -1)
        by_secret = sum(
            negacyclic(((c1 >> at) & 0xFFFFF).astype(np.float64), key.polynomial().astype(np.float64)) << at
            for at in (0, 20)
        )
        return np.asarray(remainder((c0 + by_secret) % plan.answer_modulus, plan.answer_modulus)) * (
            plan.first_prime / plan.answer_modulus / plan.unit
        )

    # What the key holder expects of a guessed model: the third part, from uniform halves that it sent.
    evaluation = program.evaluation()
    for ciphertext in query:
        evaluation.add(ciphertext)
    steps = evaluation._products(())
    while True:
        try:
            next(steps)
        except StopIteration as end:
            third = ring.coefficients(end.value[0][2])
            break
    modulus, above = prod(primes), prod(primes[1:])
    lifts = [modulus // prime * pow(modulus // prime, -1, prime) for prime in primes]
    whole = [sum(int(v) * lift for v, lift in zip(column, lifts, strict=True)) % modulus for column in third.T]
    expected = np.array([float(value // above) for value in whole]) / plan.unit

    flood, window = plan.flood / plan.spread, plan.first_prime / plan.unit
    honest = phase(key.upload(plan).data)  # the logits of zeros, and noise
    assert remainder(phase(key.upload(plan).data) - honest, window).std() < 2 * flood
    found = remainder(phase(forged(key, plan)) - honest, window)
    assert found.std() > 1e4 * flood
    assert remainder(found - expected, window).std() < 3 * flood  # the guess, confirmed 8192 times
    assert remainder(found - np.roll(expected, 1), window).std() > 1e4 * flood


def test_a_forged_relinearisation_key_reads_a_product_in_single_queries() -> None:
    plan, key = CASE.plan, CASE.key
    material = keymaterial.parse(plan, forged(key, plan))
    assert material.public is not None
    keys, blind, rows = keymaterial.load(plan, material), Blinder(plan, material.public).blind, key.rows(plan)
    values = []
    for _ in range(8):
        query = load_query(plan, [key.encrypt(p) for p in pack_input(plan, np.zeros(plan.features))])
        for _ in range(2):
            try:
                values.append(read_answer(plan, rows, CASE.evaluator.evaluate(query, blind, keys)))
            except AnswerRefused:  # outside the range: a key holder reads that too
                values.append(np.full(plan.outputs, np.nan))
    pairs = np.array(values).reshape(8, 2, -1)
    pairs = pairs[~np.isnan(pairs).any(axis=(1, 2))]
    if len(pairs) > 1:  # the same zeros encrypted anew answer otherwise; the same ciphertexts nearly the same
        assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < 10 * plan.flood
        assert np.ptp(pairs[:, 0], axis=0).max() > 1e3 * plan.flood
    else:
        assert np.isnan(np.array(values)).any()
