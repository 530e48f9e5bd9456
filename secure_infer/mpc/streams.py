"""Where every random word comes from: the operating system, or AES-256-CTR under a key that came from there.

No generator of numpy, torch or `random` is ever drawn from: they are predictable, and their seeds can be searched.
"""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc.ring import Words

KEY_BYTES = 32


def fresh_key() -> bytes:
    """A key of 256 bits from the operating system."""
    return os.urandom(KEY_BYTES)


def derive(key: bytes, label: str) -> bytes:
    """A key of its own for `label` (HKDF-SHA256, RFC 5869); keys of different labels are independent."""
    return HKDF(hashes.SHA256(), KEY_BYTES, None, b"secure-infer/mpc/1/" + label.encode()).derive(key)


def uniform_words(count: int) -> Words:
    """Words straight from the operating system."""
    return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


class KeyedStream:
    """Uniform words under one key, in order and never twice: AES-256-CTR (NIST SP 800-38A) from counter zero.

    A key serves one stream: two streams of one key are equal, which is how a seed stands for many words.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def words(self, count: int) -> Words:
        """The next `count` words, read-only. Raises CorrelationMisuse in a fork, which would repeat its parent's masks."""
        if self._process != os.getpid():
            raise CorrelationMisuse("random stream: it belongs to the process that made it, not to a fork of it")
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype=np.uint64)
