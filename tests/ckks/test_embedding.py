"""Slots and coefficients: inverse of one another, and what automorphisms do to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks import embedding, seal
from secure_infer.ckks.embedding import conjugation, element, exponents, roots, to_coefficients, to_slots

DEGREES = st.sampled_from([4, 8, 16, 64, 4096])


def automorphism(polynomial: np.ndarray, power: int) -> np.ndarray:
    """p(X^power) modulo X^N + 1."""
    degree = len(polynomial)
    at = np.arange(degree) * power % (2 * degree)
    found = np.zeros(degree)
    found[at % degree] = np.where(at < degree, polynomial, -polynomial)
    return found


def test_the_worked_example() -> None:
    assert exponents(4).tolist() == [1, 3]
    assert np.allclose(to_slots(np.array([0.0, 0.0, 1.0, 0.0])), [1j, -1j])


@settings(deadline=None)
@given(degree=DEGREES, seed=st.integers(0, 999))
def test_inverse_pairs(degree: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    polynomial = rng.normal(size=degree)
    assert np.allclose(to_coefficients(to_slots(polynomial)), polynomial)
    slots = rng.normal(size=degree // 2) + 1j * rng.normal(size=degree // 2)
    assert np.allclose(to_slots(to_coefficients(slots)), slots)


@settings(deadline=None)
@given(degree=st.sampled_from([4, 16, 64]), seed=st.integers(0, 999))
def test_slots_are_values(degree: int, seed: int) -> None:
    polynomial = np.random.default_rng(seed).normal(size=degree)
    assert np.allclose(to_slots(polynomial), np.polynomial.polynomial.polyval(roots(degree, 1), polynomial))


@settings(deadline=None)
@given(degree=DEGREES, rotation=st.integers(0, 5000), seed=st.integers(0, 999))
def test_automorphisms_rotate_and_conjugate(degree: int, rotation: int, seed: int) -> None:
    polynomial = np.random.default_rng(seed).normal(size=degree)
    slots = to_slots(polynomial)
    assert np.allclose(to_slots(automorphism(polynomial, element(rotation, degree))), np.roll(slots, -rotation))
    assert np.allclose(to_slots(automorphism(polynomial, conjugation(degree))), slots.conj())


@settings(deadline=None)
@given(degree=st.sampled_from([8, 64, 256]), place=st.integers(0, 255), seed=st.integers(0, 999))
def test_a_coefficient_is_a_trace(degree: int, place: int, seed: int) -> None:
    polynomial, p = np.random.default_rng(seed).normal(size=degree), place % degree
    assert np.isclose(2 / degree * (to_slots(polynomial) * roots(degree, -p)).sum().real, polynomial[p])


def test_products_of_polynomials_are_products_of_slots() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 16))
    full = np.convolve(a, b)
    product = full[:16] - np.append(full[16:], 0.0)
    assert np.allclose(to_slots(product), to_slots(a) * to_slots(b))


def test_slots_lie_where_seal_has_them() -> None:
    ring = seal.ring(seal.parameters(4096, (40, 20), 40))
    encoder = embedding_encoder(ring)
    values = np.random.default_rng(0).normal(size=2048) + 1j
    assert np.abs(encoder(values) - np.rint(to_coefficients(values) * 2.0**20)).max() <= 1


def embedding_encoder(ring: seal.Ring):
    """SEAL's own encoding at scale 2^20, as coefficients (N,)."""
    import tenseal.sealapi as sealapi

    def encode(values: np.ndarray) -> np.ndarray:
        plain = sealapi.Plaintext()
        sealapi.CKKSEncoder(ring.context).encode(list(map(complex, values)), 2.0**20, plain)
        count = len(ring.parameters.data_primes) * ring.parameters.degree
        residues = np.array([plain[i] for i in range(count)], np.uint64).reshape(-1, ring.parameters.degree)
        first = ring.coefficients(residues)[0].astype(np.int64)
        prime = ring.parameters.data_primes[0]
        return np.where(first > prime // 2, first - prime, first)

    return encode


@pytest.mark.parametrize("degree", [4096, 32768])
def test_cached_tables_cannot_be_changed(degree: int) -> None:
    with pytest.raises(ValueError, match="read-only"):
        embedding.exponents(degree)[0] = 5
