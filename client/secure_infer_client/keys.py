"""The one place with a secret key: key generation, encryption, and the secret polynomial that reads answers.

The secret key is never saved, nor is a function of it other than ciphertexts, not even to memory files: its polynomial is
the decryption of (0, 1), what switching keys are for reaches NTT form by SEAL's encoder, and batches are encrypted by
decrypting (see `batch.uniform`). A key that is to outlive the process is made from a seed, which a key ring keeps encrypted
(`keyring`) and which gives the same secret again. The seed gives the secret and nothing else: masks, noise and uniform halves
of a key made again are as fresh as those of any.

Inputs do pass through memory files, on their way into NTT form, and so do fresh encryptions of zero, since SEAL gives
their seeds to files only. Where a platform has no memory files these are temporary files, which only this user may read
and which are removed at once. Who got hold of one has the input, or a mask: taken off what was sent, it leaves the input,
or what a switching key is for, hence the secret.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from secure_infer.ckks import embedding, keymaterial, seal, sealio
from secure_infer.ckks.answers import secret_rows
from secure_infer.ckks.batch.keys import switching_key, targets
from secure_infer.ckks.batch.uniform import rebase
from secure_infer.ckks.keymaterial import Half, KeyMaterial
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.residues import Residues, add, pack_residues, reduce
from secure_infer.errors import InternalFault

KEY_SEED_BYTES = 64
_FINGERPRINT = b"secure-infer secret key 1"


@dataclass(frozen=True)
class _Mask:
    """A seeded encryption of zero, to be added to one plaintext and never to a second."""

    c0: Residues
    seed: bytes
    process: int


@dataclass(frozen=True)
class Upload:
    """Key material as it travels, and its SHA-256."""

    data: bytes
    digest: bytes


def new_seed() -> bytes:
    """A seed for a `SecretKey`, from the operating system."""
    return os.urandom(KEY_SEED_BYTES)


class SecretKey:
    """A ternary secret for one set of parameters, held in this process's memory only.

    seed: None makes a secret that nothing can make again; 64 bytes of `new_seed` always make the same one.
    Not thread-safe; the owner serialises calls. After `destroy` every method raises.
    """

    def __init__(self, parameters: Parameters, seed: bytes | None = None) -> None:
        self.parameters = parameters
        self._ring = seal.ring(parameters)
        fresh = sealapi.KeyGenerator(self._ring.context) if seed is None else _from_seed(self._ring, seed)
        self._generator: sealapi.KeyGenerator | None = fresh
        self._key: sealapi.SecretKey | None = fresh.secret_key()
        self._encryptor: sealapi.Encryptor | None = sealapi.Encryptor(self._ring.context, self._key)
        self._decryptor: sealapi.Decryptor | None = sealapi.Decryptor(self._ring.context, self._key)
        self._masks: list[_Mask] = []
        self._rows: dict[tuple[int, ...], NDArray[np.float64]] = {}
        self._uploads: dict[str, Upload] = {}

    def upload(self, plan: Plan) -> Upload:
        """The key material that `plan` takes, made once; empty when it takes none."""
        if plan.digest not in self._uploads:
            data = keymaterial.pack(plan, self._material(plan))
            self._uploads[plan.digest] = Upload(data, hashlib.sha256(data).digest())
        return self._uploads[plan.digest]

    def _material(self, plan: Plan) -> KeyMaterial:
        primes, degree = len(self.parameters.primes), self.parameters.degree
        public = None if plan.privacy is Privacy.INPUT_PRIVATE else self._key_level_zero()
        generator, moves, relinearisation = self._live(self._generator), {}, []
        if plan.automorphisms:
            elements = [element for element, _ in plan.automorphisms]
            keys = sealio.parse_switching_keys(sealio.saved(generator.create_galois_keys(elements)), primes, degree)
            moves = {element: keys[(element - 1) // 2] for element in elements}
        if plan.relinearisation:
            keys = sealio.parse_switching_keys(sealio.saved(generator.create_relin_keys()), primes, degree)
            relinearisation = list(keys[0])
        parts = [
            switching_key(
                self.parameters, self._ntt(target), [self._key_level_zero() for _ in self.parameters.data_primes]
            )
            for target in (targets(self.polynomial()) if plan.part_keys else ())
        ]
        return KeyMaterial(public, moves, relinearisation, parts)

    def _ntt(self, polynomial: NDArray[np.int64]) -> Residues:
        """As `Ring.ntt`, without a file. The encoder rounds, exactly here: coefficients are at most N."""
        slots, plain = embedding.to_slots(polynomial.astype(np.float64)), sealapi.Plaintext()
        sealapi.CKKSEncoder(self._ring.context).encode(slots.tolist(), self._ring.data_level, 1.0, plain)
        words = np.fromiter(map(plain.data, range(plain.coeff_count())), np.uint64)
        plain.set_zero()  # SEAL clears keys only
        return words.reshape(len(self.parameters.data_primes), self.parameters.degree)

    def _key_level_zero(self) -> Half:
        """A seeded encryption of zero at the key level: a public key, or a polynomial of a switching key."""
        zero = self._live(self._encryptor).encrypt_zero_symmetric(self._ring.key_level)
        return sealio.parse_seeded(sealio.saved(zero), len(self.parameters.primes), self.parameters.degree)

    def prepare(self, count: int = 1) -> None:
        """Make the masks of the next `count` encryptions ahead of them; does nothing when they are there."""
        while len(self._masks) < count:
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

    def encrypt_batch(self, polynomial: NDArray[np.int64]) -> bytes:
        """As `encrypt`, for batch plans: c1 is expanded as `batch.uniform` does. Nothing is made ahead, so nothing is shared
        with a fork: seed and noise are drawn from the operating system at each call."""
        primes, seed = self.parameters.data_primes, os.urandom(sealio.SEED_BYTES)
        zero, mask = sealapi.Ciphertext(self._ring.context), sealapi.Plaintext()
        self._live(self._encryptor).encrypt_zero_symmetric(self._ring.data_level, zero)
        rebase(self._ring, zero, seed)
        self._live(self._decryptor).decrypt(zero, mask)
        integers = reduce(polynomial, primes)
        # Added by SEAL, so that only the sum is read out. A ciphertext has to have a second half: ones.
        total = self._ring.load(np.stack([integers, np.ones_like(integers)]), ntt=False)
        self._ring.evaluator.transform_to_ntt_inplace(total)
        self._ring.add_plain_to(total, mask)
        return pack_residues(self._ring.residues(total)[0], primes) + seed

    def rows(self, plan: QueryPlan) -> NDArray[np.float64]:
        """The matrix that reads answers of `plan`; see `secret_rows`."""
        shape = tuple(plan.position(t) for t in range(plan.answers_per_product))
        if shape not in self._rows:
            self._rows[shape] = secret_rows(plan, self.polynomial())
        return self._rows[shape]

    def polynomial(self) -> NDArray[np.int8]:
        """The secret's coefficients (N,), each -1, 0 or 1."""
        degree, primes = self.parameters.degree, self.parameters.data_primes
        carrier = np.zeros((2, len(primes), degree), np.uint64)
        carrier[1] = 1  # the constant polynomial 1 in NTT form: decryption gives 0 + 1·s
        plain = sealapi.Plaintext()
        self._live(self._decryptor).decrypt(self._ring.load(carrier), plain)
        slots = np.array(sealapi.CKKSEncoder(self._ring.context).decode_complex(plain))
        plain.set_zero()
        secret = np.rint(embedding.to_coefficients(slots))
        if np.abs(secret).max() > 1:
            raise InternalFault("SEAL's secret is not ternary; this version supports tenseal 0.3")
        return secret.astype(np.int8)

    def fingerprint(self) -> bytes:
        """SHA-256 of the secret: says whether a seed made the same one again. As secret as the seed it is kept with."""
        return hashlib.sha256(_FINGERPRINT + self.polynomial().tobytes()).digest()

    def destroy(self) -> None:
        """Forget the secret; SEAL clears its memory."""
        self._key = self._encryptor = self._decryptor = self._generator = None
        self._masks.clear()
        self._uploads.clear()
        for matrix in self._rows.values():
            matrix.fill(0)
        self._rows.clear()

    @staticmethod
    def _live(secret: Any) -> Any:
        if secret is None:
            raise InternalFault("the secret key was destroyed")
        return secret


def _from_seed(ring: seal.Ring, seed: bytes) -> sealapi.KeyGenerator:
    """A generator around the secret that the seed gives.

    SEAL draws that secret from a context whose randomness the seed fixes. The context ends here: what is encrypted or made
    with the generator returned draws from the operating system, else two processes would make the same masks.
    """
    if len(seed) != KEY_SEED_BYTES:
        raise InternalFault(f"key seed: expected {KEY_SEED_BYTES} bytes, got {len(seed)}")
    literal = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    literal.set_poly_modulus_degree(ring.parameters.degree)
    literal.set_coeff_modulus([sealapi.Modulus(prime) for prime in ring.parameters.primes])
    literal.set_random_generator(sealapi.Blake2xbPRNGFactory(np.frombuffer(seed, "<u8").tolist()))
    context = sealapi.SEALContext(literal, True, sealapi.SEC_LEVEL_TYPE.TC128)
    return sealapi.KeyGenerator(ring.context, sealapi.KeyGenerator(context).secret_key())
