"""The public half of SEAL, through TenSEAL's raw binding: rings, ciphertexts, products, encryptions of zero.

This module never makes or loads a secret key, and never hands foreign bytes to SEAL: every stream that SEAL loads is
built here from residues that were checked first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from secure_infer.ckks import sealio
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.residues import Residues, reduce
from secure_infer.errors import PlanRefused

Ciphertext = Any
Plaintext = Any
ZeroEncryptor = Any
GaloisKeys = Any
RelinKeys = Any


class Ring:
    """SEAL's objects for one set of parameters. Cheap to use from one thread at a time; holds no key."""

    def __init__(self, parameters: Parameters) -> None:
        literal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        literal.set_poly_modulus_degree(parameters.degree)
        literal.set_coeff_modulus([sealapi.Modulus(prime) for prime in parameters.primes])
        self.parameters = parameters
        self.context = sealapi.SEALContext(literal, True, sealapi.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise PlanRefused(f"parameters {parameters}: SEAL refuses them ({self.context.parameters_error_message()})")
        self.evaluator = sealapi.Evaluator(self.context)
        self.data_level = self.context.first_parms_id()
        self.key_level = self.context.key_parms_id()
        self._levels = {}
        data = self.context.first_context_data()
        for primes in range(len(parameters.data_primes), 0, -1):
            self._levels[primes] = data.parms_id()
            data = data.next_context_data()

    # In. A level is the number of data primes left.

    def load(self, residues: Residues, *, ntt: bool = True) -> Ciphertext:
        """A ciphertext from residues (2 or 3, level, N), already checked to be below their primes."""
        data = sealio.ciphertext(self._levels[residues.shape[1]], residues, ntt=ntt)
        return sealio.load(sealapi.Ciphertext(self.context), self.context, data)

    def expand(self, c0: Residues, seed: bytes) -> Ciphertext:
        """The ciphertext (c0, c1) with c1 expanded from `seed`: its uniform half cannot be chosen by the sender."""
        data = sealio.seeded_ciphertext(self.data_level, c0, seed)
        return sealio.load(sealapi.Ciphertext(self.context), self.context, data)

    def zero_encryptor(self, c0: Residues, seed: bytes) -> ZeroEncryptor:
        """An encryptor under the public key (c0, c1 from seed), c0 (all primes, N) in NTT form."""
        data = sealio.seeded_ciphertext(self.key_level, c0, seed)
        return sealapi.Encryptor(self.context, sealio.load(sealapi.PublicKey(), self.context, data))

    def plaintext(self, coefficients: NDArray[np.int64] | NDArray[np.float64], level: int | None = None) -> Plaintext:
        """The plaintext of an exact integer polynomial (N,), without the rounding of an encoder.

        Floating-point coefficients hold integers too, of any size below 2^1000.
        """
        residues = self.ntt(coefficients)[:level]
        data = sealio.plaintext(self._levels[len(residues)], residues)
        return sealio.load(sealapi.Plaintext(), self.context, data)

    def galois_keys(self, keys: Mapping[int, sealio.SwitchingKey]) -> GaloisKeys:
        """Keys by Galois element; uniform halves are expanded from their seeds."""
        by_index = {(element - 1) // 2: key for element, key in keys.items()}
        data = sealio.switching_keys(self.key_level, by_index, self.parameters.degree)
        return sealio.load(sealapi.GaloisKeys(), self.context, data)

    def relin_keys(self, key: sealio.SwitchingKey) -> RelinKeys:
        data = sealio.switching_keys(self.key_level, {0: key}, 1)
        return sealio.load(sealapi.RelinKeys(), self.context, data)

    # Out.

    def residues(self, ciphertext: Ciphertext) -> Residues:
        """The residues (2, primes, N) of a ciphertext, in whichever form it is."""
        shape = (ciphertext.size(), ciphertext.coeff_modulus_size(), ciphertext.poly_modulus_degree())
        return sealio.words(ciphertext, shape[0] * shape[1] * shape[2]).reshape(shape)

    # Arithmetic. Scales are kept by the plan, exactly; SEAL's own are held at one.

    def ntt(self, coefficients: NDArray[np.int64] | NDArray[np.float64]) -> Residues:
        """An integer polynomial (N,) in NTT form, as residues (data primes, N)."""
        return self.ntt_residues(reduce(coefficients, self.parameters.data_primes))

    def ntt_residues(self, residues: Residues) -> Residues:
        """Residues (data primes, N) of a polynomial's coefficients in NTT form."""
        # SEAL refuses a ciphertext whose second half is zero, so the carrier has ones there.
        carrier = self.load(np.stack([residues, np.ones_like(residues)]), ntt=False)
        self.evaluator.transform_to_ntt_inplace(carrier)
        half: Residues = self.residues(carrier)[0]
        return half

    def coefficients(self, residues: Residues) -> Residues:
        """The inverse of `ntt_residues`."""
        carrier = self.load(np.stack([residues, np.ones_like(residues)]))
        self.evaluator.transform_from_ntt_inplace(carrier)
        half: Residues = self.residues(carrier)[0]
        return half

    def multiply(self, ciphertext: Ciphertext, plaintext: Plaintext) -> Ciphertext:
        product = sealapi.Ciphertext(self.context)
        self.evaluator.multiply_plain(ciphertext, plaintext, product)
        return product

    def add_to(self, total: Ciphertext, other: Ciphertext) -> None:
        self.evaluator.add_inplace(total, other)

    def add_plain_to(self, total: Ciphertext, plaintext: Plaintext) -> None:
        self.evaluator.add_plain_inplace(total, plaintext)

    def product(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """a times b: one part more than both have together, less one."""
        product = sealapi.Ciphertext(self.context)
        self.evaluator.multiply(a, b, product)
        return product

    def square(self, ciphertext: Ciphertext) -> Ciphertext:
        product = sealapi.Ciphertext(self.context)
        self.evaluator.square(ciphertext, product)
        return product

    def relinearise(self, ciphertext: Ciphertext, keys: RelinKeys) -> None:
        """Three parts to two, in place."""
        self.evaluator.relinearize_inplace(ciphertext, keys)

    def automorphism(self, ciphertext: Ciphertext, element: int, keys: GaloisKeys) -> Ciphertext:
        """The ciphertext of the polynomial m(X^element): a rotation or a conjugation of slots."""
        moved = sealapi.Ciphertext(self.context)
        self.evaluator.apply_galois(ciphertext, element, keys, moved)
        return moved

    def drop(self, ciphertext: Ciphertext, level: int) -> None:
        """Divide by the last primes and round, in place, until `level` are left."""
        for prime in reversed(self.parameters.data_primes[level : ciphertext.coeff_modulus_size()]):
            ciphertext.scale = float(prime)
            self.evaluator.rescale_to_next_inplace(ciphertext)

    def lower(self, ciphertext: Ciphertext, level: int) -> Ciphertext:
        """The same ciphertext modulo the first `level` primes; a copy."""
        return self.load(self.residues(ciphertext)[:, :level])

    def encrypt_zero(self, encryptor: ZeroEncryptor, level: int | None = None) -> Ciphertext:
        """A fresh encryption of zero, at the data level by default; SEAL draws its randomness from the operating system."""
        zero = sealapi.Ciphertext(self.context)
        encryptor.encrypt_zero(self.data_level if level is None else self._levels[level], zero)
        zero.scale = 1.0
        return zero

    def finish(self, ciphertext: Ciphertext) -> Residues:
        """Rescale down to the first prime and leave NTT form, in place; the residues (2, N) modulo that prime."""
        self.drop(ciphertext, 1)
        self.evaluator.transform_from_ntt_inplace(ciphertext)
        halves: Residues = self.residues(ciphertext)[:, 0]
        return halves


@lru_cache(maxsize=16)
def ring(parameters: Parameters) -> Ring:
    """The ring for `parameters`, built once."""
    return Ring(parameters)


@lru_cache(maxsize=256)
def parameters(degree: int, data_bits: tuple[int, ...], special_bits: int | None = None) -> Parameters:
    """Parameters with SEAL's choice of primes of these sizes."""
    bits = [*data_bits, *([] if special_bits is None else [special_bits])]
    try:
        primes = [int(modulus.value()) for modulus in sealapi.CoeffModulus.Create(degree, bits)]
    except (RuntimeError, ValueError) as error:
        raise PlanRefused(f"modulus chain: no primes of {bits} bits at N = {degree} ({error})") from None
    return Parameters(degree, tuple(primes[: len(data_bits)]), None if special_bits is None else primes[-1])
