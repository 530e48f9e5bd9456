"""Refuses secret keys sent by mistake, by structure, without ever building one.

SEAL streams carry no type, so the layout has to tell. Recognised, uncompressed or with zlib or zstd, at the start of
the bytes or inside other bytes:
    a SEAL SecretKey (or Plaintext: the two have one layout, and neither has any business here)
    a TenSEAL context serialised with its secret key (a protobuf around such a stream)
and the secret polynomial itself, ternary, in the place of c0: in a public key in coefficient or NTT form, in a query in
coefficient form (its NTT form looks like any ciphertext, and telling would cost every query a transform).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import zstandard

from secure_infer.ckks import seal
from secure_infer.ckks.plan import Plan
from secure_infer.ckks.residues import Residues
from secure_infer.ckks.sealio import HEADER, MAGIC
from secure_infer.errors import SecretKeyReceived

_MARK = struct.pack("<HB", MAGIC, HEADER.size)
_ENOUGH = 4096  # bytes of a body that show its layout; decompressing no more disarms bombs
_PLAIN = struct.Struct("<32sQd")  # parms_id, coefficient count, scale; then the coefficients' array
_MESSAGE = (
    "the bytes have the structure of a secret key ({what}); they were dropped and not stored. Only public keys and "
    "ciphertexts belong here: treat that key as exposed and make a new one"
)


def _body(data: bytes, at: int) -> bytes:
    """The first bytes of the body of the SEAL stream at `at`, decompressed; empty when there is none."""
    if len(data) - at < HEADER.size:
        return b""
    mode = HEADER.unpack_from(data, at)[4]
    raw = memoryview(data)[at + HEADER.size :]
    try:
        if mode == 1:
            return zlib.decompressobj().decompress(raw, _ENOUGH)
        if mode == 2:
            return zstandard.ZstdDecompressor(max_window_size=1 << 24).stream_reader(raw).read(_ENOUGH)
    except (zlib.error, zstandard.ZstdError):
        return b""
    return bytes(raw[:_ENOUGH])


def _is_secret(body: bytes) -> bool:
    head = _PLAIN.size + HEADER.size + 8
    if len(body) < head:
        return False
    _, count, _ = _PLAIN.unpack_from(body)
    magic, size = struct.unpack_from("<HB", body, _PLAIN.size)
    (length,) = struct.unpack_from("<Q", body, head - 8)
    return bool(magic == MAGIC and size == HEADER.size and length == count >= 1024 and count % 1024 == 0)


def refuse_secret_streams(data: bytes) -> None:
    """Raise SecretKeyReceived when `data` holds a SEAL stream of a secret key."""
    at = data.find(_MARK)
    for _ in range(64):
        if at < 0:
            return
        if _is_secret(_body(data, at)):
            raise SecretKeyReceived(
                _MESSAGE.format(what="a SEAL secret key" if at == 0 else "a SEAL secret key inside other data")
            )
        at = data.find(_MARK, at + 1)


def refuse_ternary_query(c0: Residues, primes: Sequence[int]) -> None:
    """Raise SecretKeyReceived when c0 (primes, N) of a query holds coefficients of a ternary polynomial."""
    if _ternary(c0[:, :256], primes):
        raise SecretKeyReceived(_MESSAGE.format(what="a ternary polynomial in coefficient form"))


def _ternary(residues: Residues, primes: Sequence[int]) -> bool:
    if 1 < int(residues[0, 0]) < primes[0] - 1:  # so in nearly every object: one value tells
        return False
    top = np.array(primes, np.uint64)[:, None] - np.uint64(1)
    return bool(((residues <= 1) | (residues == top)).all())


def refuse_ternary(plan: Plan, c0: Residues) -> None:
    """Raise SecretKeyReceived when c0 (all primes, N) of a public or switching key is a ternary polynomial."""
    primes = plan.parameters.data_primes
    data = c0[: len(primes)]
    ring = seal.ring(plan.parameters)
    for form, residues in (("coefficient", data), ("NTT", ring.coefficients(data))):
        if _ternary(residues, primes):
            raise SecretKeyReceived(_MESSAGE.format(what=f"a ternary polynomial in {form} form"))
