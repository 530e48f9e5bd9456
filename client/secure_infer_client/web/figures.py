"""Bytes and numbers as the page draws them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.residues import packed_width, residue_bytes, unpack_residues

SHOWN_HEX = 192
SHOWN_NOISE = 4096
"""Bytes that are drawn, a pixel each."""


def of_ciphertexts(found: Sequence[bytes], parameters: Parameters) -> Mapping[str, Any]:
    """As `of_bytes`, of ciphertexts as they travel: packed residues, then a seed.

    Packing fills numbers of 58 bits, say, up to 60 with zeros. That is the format's and says nothing of what is encrypted, so
    that pixels and histogram are of each number's lowest whole bytes then, and `filled` is True.
    """
    data = b"".join(found)
    primes = parameters.data_primes
    if all(packed_width(prime.bit_length()) == prime.bit_length() for prime in primes):
        return {**of_bytes(data), "filled": False}
    size = residue_bytes(parameters.degree, primes)
    kept = []
    for one in found:
        rows = unpack_residues(one[:size], parameters.degree, primes, "ciphertext")
        for row, prime in zip(rows, primes, strict=True):
            whole = row.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : prime.bit_length() // 8]
            kept += [whole.tobytes()]
        kept += [one[size:]]
    return {**of_bytes(b"".join(kept)), "bytes": len(data), "hex": data[:SHOWN_HEX].hex(), "filled": True}


def of_bytes(data: bytes) -> Mapping[str, Any]:
    """What anybody who has the bytes can see of them.

    hex: the first. pixels: more of them, base64. histogram: how often each of the 256 bytes occurs. unevenness: its distance
    from a flat one, as Pearson's chi-squared over the 255 that uniform bytes have on average: 1 for them, give or take 0.09.
    """
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return {
        "bytes": len(data),
        "hex": data[:SHOWN_HEX].hex(),
        "pixels": base64.b64encode(data[:SHOWN_NOISE]).decode(),
        "histogram": counts.tolist(),
        "unevenness": round(float(((counts - expected) ** 2).sum() / expected / 255), 2),
    }


def of_vector(row: NDArray[np.float64]) -> Mapping[str, Any]:
    """An embedding (d,): its numbers, four decimals of each, and its bytes as float32, which it was computed in."""
    return {"values": [round(float(v), 4) for v in row], **of_bytes(row.astype("<f4").tobytes())}
