"""The security table, and residues and streams at its edges."""

import numpy as np
import pytest

from secure_infer.ckks import seal
from secure_infer.ckks.parameters import MAX_MODULUS_BITS, Parameters
from secure_infer.errors import PlanRefused


def test_table_is_the_2024_guideline() -> None:
    assert MAX_MODULUS_BITS == {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}


@pytest.mark.parametrize(
    ("degree", "bits", "special"),
    [(2048, (54,), None), (4096, (44, 43), 20), (8192, (60, 60, 60), 35), (1024, (26,), None), (3000, (53,), None)],
)
def test_nothing_below_128_bits_can_be_made(degree: int, bits: tuple[int, ...], special: int | None) -> None:
    with pytest.raises((PlanRefused, ValueError)):
        seal.parameters(degree, bits, special)


@pytest.mark.parametrize(
    ("primes", "special"), [((7,), None), ((2**53 + 3,), None), ((9007199254614017,) * 2, 1032193), ((), None)]
)
def test_chains_that_are_not_chains(primes: tuple[int, ...], special: int | None) -> None:
    with pytest.raises(PlanRefused):
        Parameters(4096, primes, special)


def test_composite_moduli_are_refused() -> None:
    with pytest.raises(PlanRefused, match="SEAL refuses"):
        seal.Ring(Parameters(4096, (2**53 + 1,)))


def test_a_special_prime_goes_with_several_data_primes() -> None:
    good = seal.parameters(4096, (43, 43), 20)
    with pytest.raises(PlanRefused):
        Parameters(4096, good.data_primes)
    with pytest.raises(PlanRefused):
        Parameters(4096, good.data_primes[:1], good.special_prime)
    with pytest.raises(PlanRefused, match="at least one"):
        Parameters(4096, (), good.special_prime)


def test_products_are_exact() -> None:
    """(X + 2)(3 X² - 1) in the ring, through NTT, product and back: 3 X³ + 6 X² - X - 2."""
    for parameters in (seal.parameters(2048, (53,)), seal.parameters(4096, (43, 43), 20)):
        ring = seal.ring(parameters)
        a, b = np.zeros((2, parameters.degree), np.int64)
        a[:2], b[:3] = (2, 1), (-1, 0, 3)
        carrier = np.stack([ring.ntt(a)] * 2)
        product = ring.residues(ring.multiply(ring.load(carrier), ring.plaintext(b)))[0]
        found = ring.coefficients(product)
        for row, prime in zip(found, parameters.data_primes, strict=True):
            assert row[:4].tolist() == [prime - 2, prime - 1, 6, 3]
            assert not row[4:].any()
