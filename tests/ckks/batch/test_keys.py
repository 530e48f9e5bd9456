"""Switching keys bring every part of the conjugates' basis back under the secret; their bytes are checked."""

import numpy as np
import pytest

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.batch import keys
from secure_infer.ckks.batch.packing import negacyclic
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.residues import centred
from secure_infer.errors import MalformedRequest
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Hidden, Network
from secure_infer_client.keys import SecretKey


def test_conjugation_reverses_the_transform_and_conjugates_slots() -> None:
    ring = seal.ring(seal.parameters(4096, (30,)))
    polynomial = np.random.default_rng(0).integers(-9, 10, 4096)
    assert np.array_equal(ring.ntt(keys.conjugate(polynomial)), ring.ntt(polynomial)[:, ::-1])
    assert keys.conjugate(np.array([1, 2, 3, 4])).tolist() == [1, -4, -3, -2]


def test_negacyclic_products_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**20, 16), rng.integers(-1, 2, 16)
    full = np.convolve(a, b)
    assert np.array_equal(negacyclic(a.astype(float), b.astype(float)), full[:16] - np.append(full[16:], 0))
    large = np.full(32768, 2.0**20 - 1)
    assert negacyclic(large, np.ones(32768))[[0, -1]].tolist() == [-32766 * (2**20 - 1), 32768 * (2**20 - 1)]


def quadratic_plan() -> BatchPlan:
    network = Network([Hidden(np.ones((1, 1)), np.array([[0.0, 0.0, 1.0]]))], Linear([[1.0]]))
    return choose(network, InputContract(1, 1.0), error=0.1, smudging=2).plan


def test_every_part_is_switched_with_little_noise() -> None:
    plan = quadratic_plan()
    key, ring, primes = SecretKey(plan.parameters), seal.ring(plan.parameters), plan.parameters.data_primes
    degree, polynomial = plan.parameters.degree, key.polynomial()
    secret, modulus = ring.ntt(polynomial.astype(np.int64)).astype(object), np.array(primes, object)[:, None]
    switching = keymaterial.parse(plan, key.upload(plan).data).parts
    rng = np.random.default_rng(2)
    for target, made in zip(keys.targets(polynomial), switching, strict=True):
        part = np.stack([rng.integers(0, p, degree, np.uint64) for p in primes])
        term = ring.load(np.stack([np.zeros_like(part), np.zeros_like(part), part]))
        ring.relinearise(term, ring.relin_keys(made))
        found = ring.residues(term).astype(object)
        wanted = part.astype(object) * ring.ntt(target).astype(object)
        error = ring.coefficients(((found[0] + found[1] * secret - wanted) % modulus).astype(np.uint64))
        q = plan.parameters.data_modulus
        bases = [q // p * pow(q // p, -1, p) for p in primes]
        whole = [sum(int(x) * base for x, base in zip(column, bases, strict=True)) % q for column in error.T]
        assert max(abs(centred(value, q)) for value in whole) * 2**24 < q


def test_malformed_key_material_is_refused() -> None:
    plan = quadratic_plan()
    data = SecretKey(plan.parameters).upload(plan).data
    assert keymaterial.pack(plan, keymaterial.parse(plan, data)) == data
    for bad in (data[:-1], data + b"x", b"", b"\xff" * len(data)):
        with pytest.raises(MalformedRequest):
            keymaterial.parse(plan, bad)
