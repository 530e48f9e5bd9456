"""The one place with a secret key: key generation, encryption, and the secret polynomial that reads answers.

The secret key is never saved, not even to memory files: its polynomial is obtained by decrypting the ciphertext (0, 1).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from secure_infer.ckks import seal, sealio
from secure_infer.ckks.coefficient import secret_rows
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import CoefficientPlan
from secure_infer.ckks.residues import Residues, add, pack_residues
from secure_infer.errors import InternalFault

MASKS_AHEAD = 1


@dataclass(frozen=True)
class _Mask:
    """A seeded encryption of zero, to be added to one plaintext and never to a second."""

    c0: Residues
    seed: bytes
    process: int


class SecretKey:
    """A fresh ternary secret for one set of parameters, held in this process's memory only.

    Not thread-safe; the owner serialises calls. After `destroy` every method raises.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._ring = seal.ring(parameters)
        self._key: sealapi.SecretKey | None = sealapi.KeyGenerator(self._ring.context).secret_key()
        self._encryptor: sealapi.Encryptor | None = sealapi.Encryptor(self._ring.context, self._key)
        self._masks: list[_Mask] = []
        self._rows: dict[tuple[int, int], NDArray[np.float64]] = {}
        self.public_bytes = self._public()
        self.public_digest = hashlib.sha256(self.public_bytes).digest()

    def _public(self) -> bytes:
        """The public key as it travels: c0 of an encryption of zero, and the seed of its uniform half."""
        zero = self._live(self._encryptor).encrypt_zero_symmetric(self._ring.key_level)
        c0, seed = sealio.parse_seeded(sealio.saved(zero), len(self.parameters.primes), self.parameters.degree)
        return pack_residues(c0, self.parameters.primes) + seed

    def prepare(self) -> None:
        """Make the mask of the next encryption ahead of it; does nothing when one is there."""
        while len(self._masks) < MASKS_AHEAD:
            self._masks.append(self._mask())

    def _mask(self) -> _Mask:
        zero = self._live(self._encryptor).encrypt_zero_symmetric()
        c0, seed = sealio.parse_seeded(sealio.saved(zero), len(self.parameters.data_primes), self.parameters.degree)
        return _Mask(c0, seed, os.getpid())

    def encrypt(self, polynomial: NDArray[np.int64]) -> bytes:
        """A fresh encryption of an integer polynomial (N,), as it travels: packed c0, then the seed of c1.

        The polynomial is added exactly: no encoder rounds it.
        """
        mask = self._masks.pop() if self._masks else self._mask()
        # A mask made before a fork exists twice; used twice, it would reveal the difference of two inputs.
        if mask.process != os.getpid():
            self._masks.clear()
            mask = self._mask()
        primes = self.parameters.data_primes
        c0 = add(mask.c0, self._ring.ntt(polynomial), primes)
        return pack_residues(c0, primes) + mask.seed

    def rows(self, plan: CoefficientPlan) -> NDArray[np.float64]:
        """The matrix that reads answers of `plan`; see `secret_rows`."""
        shape = (plan.answers_per_product, plan.span)
        if shape not in self._rows:
            self._rows[shape] = secret_rows(plan, self._polynomial())
        return self._rows[shape]

    def _polynomial(self) -> NDArray[np.int8]:
        """The secret's coefficients (N,), each -1, 0 or 1."""
        degree, primes = self.parameters.degree, self.parameters.data_primes
        carrier = np.zeros((2, len(primes), degree), np.uint64)
        carrier[1] = 1  # the constant polynomial 1 in NTT form: decryption gives 0 + 1·s
        plain = sealapi.Plaintext()
        sealapi.Decryptor(self._ring.context, self._live(self._key)).decrypt(self._ring.load(carrier), plain)
        slots = np.array(sealapi.CKKSEncoder(self._ring.context).decode_complex(plain))
        secret = np.rint(_coefficients(slots, degree))
        if np.abs(secret).max() > 1:
            raise InternalFault("SEAL's secret is not ternary; this version supports tenseal 0.3")
        return secret.astype(np.int8)

    def destroy(self) -> None:
        """Forget the secret; SEAL clears its memory."""
        self._key = self._encryptor = None
        self._masks.clear()
        for matrix in self._rows.values():
            matrix.fill(0)
        self._rows.clear()

    @staticmethod
    def _live(secret: Any) -> Any:
        if secret is None:
            raise InternalFault("the secret key was destroyed")
        return secret


def _coefficients(slots: NDArray[np.complex128], degree: int) -> NDArray[np.float64]:
    """Coefficients (N,) of the real polynomial with those values at SEAL's slot points exp(iπ/N)^(3^j)."""
    exponents = np.array([pow(3, j, 2 * degree) for j in range(degree // 2)])
    values = np.empty(degree, np.complex128)
    values[(exponents - 1) // 2] = slots
    values[(2 * degree - exponents - 1) // 2] = np.conj(slots)
    turn = np.exp(1j * np.pi * np.arange(degree) / degree)
    return np.real(np.fft.ifft(np.conj(values)) * turn)
