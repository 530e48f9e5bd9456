"""The public half of SEAL, through TenSEAL's raw binding: rings, ciphertexts, products, encryptions of zero.

This module never makes or loads a secret key, and never hands foreign bytes to SEAL: every stream that SEAL loads is
built here from residues that were checked first.
"""

from __future__ import annotations

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

    # In.

    def load(self, residues: Residues, *, ntt: bool = True) -> Ciphertext:
        """A data-level ciphertext from residues (2, primes, N), already checked to be below their primes."""
        data = sealio.ciphertext(self.data_level, residues, ntt=ntt)
        return sealio.load(sealapi.Ciphertext(self.context), self.context, data)

    def expand(self, c0: Residues, seed: bytes) -> Ciphertext:
        """The ciphertext (c0, c1) with c1 expanded from `seed`: its uniform half cannot be chosen by the sender."""
        data = sealio.seeded_ciphertext(self.data_level, c0, seed)
        return sealio.load(sealapi.Ciphertext(self.context), self.context, data)

    def zero_encryptor(self, c0: Residues, seed: bytes) -> ZeroEncryptor:
        """An encryptor under the public key (c0, c1 from seed), c0 (all primes, N) in NTT form."""
        data = sealio.seeded_ciphertext(self.key_level, c0, seed)
        return sealapi.Encryptor(self.context, sealio.load(sealapi.PublicKey(), self.context, data))

    def plaintext(self, coefficients: NDArray[np.int64]) -> Plaintext:
        """The plaintext of an exact integer polynomial (N,), without the rounding of an encoder."""
        data = sealio.plaintext(self.data_level, self.ntt(coefficients))
        return sealio.load(sealapi.Plaintext(), self.context, data)

    # Out.

    def residues(self, ciphertext: Ciphertext) -> Residues:
        """The residues (2, primes, N) of a ciphertext, in whichever form it is."""
        shape = (ciphertext.size(), ciphertext.coeff_modulus_size(), ciphertext.poly_modulus_degree())
        return sealio.words(ciphertext, shape[0] * shape[1] * shape[2]).reshape(shape)

    # Arithmetic. Scales are kept by the plan, exactly; SEAL's own are held at one.

    def ntt(self, coefficients: NDArray[np.int64]) -> Residues:
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

    def encrypt_zero(self, encryptor: ZeroEncryptor) -> Ciphertext:
        """A fresh data-level encryption of zero; SEAL draws its randomness from the operating system."""
        zero = sealapi.Ciphertext(self.context)
        encryptor.encrypt_zero(self.data_level, zero)
        zero.scale = 1.0
        return zero

    def finish(self, ciphertext: Ciphertext) -> Residues:
        """Rescale down to the first prime and leave NTT form, in place; the residues (2, N) modulo that prime."""
        for prime in reversed(self.parameters.data_primes[1:]):
            ciphertext.scale = float(prime)
            self.evaluator.rescale_to_next_inplace(ciphertext)
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
