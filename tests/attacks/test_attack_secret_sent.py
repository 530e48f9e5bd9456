"""Claim: a secret key sent by mistake is refused as one, at once and by structure, and is not stored.

Adversary: carelessness: a user who uploads the wrong file, a TenSEAL context saved with its secret key, a program that
writes the secret where the public key belongs.
Counterpart: public objects of the same libraries, which are refused too, as malformed, since a false alarm about an
exposed key costs trust.
"""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest
import tenseal
import tenseal.sealapi as sealapi
import zstandard
from adversary import Case, Served, call, secret_polynomial, upload

from secure_infer.ckks import seal, sealio
from secure_infer.ckks.coefficient import pack_input
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import pack_residues
from secure_infer.errors import MalformedRequest, SecretKeyReceived
from secure_infer.v1 import inference_pb2, inference_pb2_grpc
from secure_infer_client import Client
from secure_infer_client.keys import SecretKey

MODES = {"uncompressed": 0, "zlib": 1, "zstd": 2}


def stream(body: bytes, mode: str) -> bytes:
    """A SEAL stream around `body`, compressed as SEAL can."""
    compressors = {"uncompressed": bytes, "zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}
    packed = compressors[mode](body)
    magic, size, major, minor, _, reserved, _ = sealio.HEADER.unpack_from(sealio.stream(b""))
    return sealio.HEADER.pack(magic, size, major, minor, MODES[mode], reserved, size + len(packed)) + packed


def context(secret: bool, galois: bool = False) -> bytes:
    made = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    made.global_scale = 2.0**20
    made.generate_relin_keys()
    if galois:
        made.generate_galois_keys()
    return made.serialize(save_public_key=True, save_secret_key=secret, save_galois_keys=galois, save_relin_keys=True)


def seal_secret(degree: int, bits: tuple[int, ...]) -> bytes:
    special = None if len(bits) == 1 else 20
    key = SecretKey(seal.parameters(degree, bits, special))
    return sealio.body(sealio.saved(key._key))


SECRET = seal_secret(2048, (53,))
SECRETS = {
    **{f"SEAL secret key, {mode}": stream(SECRET, mode) for mode in MODES},
    "SEAL secret key of other parameters": stream(seal_secret(4096, (33, 33)), "zstd"),
    "SEAL secret key, cut short": stream(SECRET, "uncompressed")[:-100],
    "SEAL secret key inside other bytes": b"backup.tar" + bytes(502) + stream(SECRET, "zstd") + b"end",
    "TenSEAL context with its secret key": context(secret=True),
    "TenSEAL context with all its keys": context(secret=True, galois=True),
}


def public_object(name: str) -> bytes:
    ring = seal.ring(seal.parameters(4096, (40, 20), 40))
    generator = sealapi.KeyGenerator(ring.context)
    if name == "relinearisation keys":
        return sealio.saved(generator.create_relin_keys())
    if name == "galois keys":
        return sealio.saved(generator.create_galois_keys([3]))
    if name == "parameters":
        return sealio.saved(sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS))
    encryptor = sealapi.Encryptor(ring.context, generator.secret_key())
    return sealio.saved(encryptor.encrypt_zero_symmetric(ring.key_level))


PUBLIC = {
    "TenSEAL context without it": context(secret=False),
    "TenSEAL context without it, with rotation keys": context(secret=False, galois=True),
    **{name: public_object(name) for name in ("relinearisation keys", "galois keys", "parameters", "public key")},
    "noise": np.random.default_rng(1).bytes(20_000),
    "nothing": b"",
}


@pytest.fixture(scope="module")
def case(served: Served) -> Case:
    return Case.of(served.head, Privacy.BOTH_PRIVATE)


def infer(served: Served, case: Case, key_digest: bytes, ciphertext: bytes) -> inference_pb2.InferResponse:
    request = inference_pb2.InferRequest(
        model=served.model,
        model_digest=bytes.fromhex(served.head.digest),
        plan_digest=bytes.fromhex(case.plan.digest),
        key_digest=key_digest,
        queries=[inference_pb2.Query(ciphertexts=[ciphertext])],
    )
    return call(served.address, inference_pb2_grpc.InferenceServiceStub, "Infer", request)


def assert_not_stored(served: Served, case: Case, data: bytes) -> None:
    query = case.key.encrypt(pack_input(case.plan, np.zeros(case.plan.features))[0])
    assert infer(served, case, hashlib.sha256(data).digest(), query).WhichOneof("result") == "unknown_key"


def assert_alive(served: Served) -> None:
    x = np.full((1, served.head.features), 0.5)
    with Client(served.address, model=served.model) as client:
        assert np.abs(client.predict(x) - served.head.evaluate(x)).max() < client.plan.error_bound


@pytest.mark.parametrize("data", SECRETS.values(), ids=SECRETS)
def test_a_secret_key_is_refused_wherever_it_arrives(served: Served, case: Case, data: bytes) -> None:
    with pytest.raises(SecretKeyReceived, match="treat that key as exposed"):
        upload(served.address, served.model, case.plan, data)
    assert_not_stored(served, case, data)
    if len(data) > 2_000_000:  # no query of that size is taken at all
        return
    upload(served.address, served.model, case.plan, case.upload)
    with pytest.raises(SecretKeyReceived):
        infer(served, case, case.key.upload(case.plan).digest, data)
    assert_alive(served)


@pytest.mark.parametrize("form", ["coefficients", "NTT", "negated"])
def test_the_secret_polynomial_in_place_of_the_public_key_is_refused(served: Served, case: Case, form: str) -> None:
    """The right length, the right seed, and c0 is s: nothing but its ternary coefficients gives it away."""
    secret = secret_polynomial(case.plan, case.key).astype(np.int64)
    prime = case.plan.first_prime
    residues = {
        "coefficients": np.where(secret < 0, prime - 1, secret).astype(np.uint64)[None],
        "NTT": case.ring.ntt(secret),
        "negated": case.ring.ntt(-secret),
    }[form]
    key = pack_residues(residues, case.plan.parameters.primes) + case.upload[-sealio.SEED_BYTES :]
    assert len(key) == case.plan.key_bytes
    with pytest.raises(SecretKeyReceived, match="ternary"):
        upload(served.address, served.model, case.plan, key)
    assert_not_stored(served, case, key)
    assert_alive(served)


@pytest.mark.parametrize("data", PUBLIC.values(), ids=PUBLIC)
def test_public_objects_are_malformed_not_secret(served: Served, case: Case, data: bytes) -> None:
    with pytest.raises(MalformedRequest) as refused:
        upload(served.address, served.model, case.plan, data)
    assert refused.value.reason == "MALFORMED_REQUEST"
    assert_not_stored(served, case, data)
