"""What makes two requests identical."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def fingerprint(model_digest: bytes, plan_digest: bytes, key_digest: bytes, ciphertexts: Iterable[bytes]) -> bytes:
    """SHA-256 (32 bytes) over a request: the digests, then each ciphertext, every part with its length before it."""
    found = hashlib.sha256()
    for part in (model_digest, plan_digest, key_digest, *ciphertexts):
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()
