"""Orion: a torch module compiled for Lattigo's CKKS, plaintext weights. Usage: python run.py WORKLOAD.npz

Orion packs matrices and chooses rotations and levels; the parameters below are those of its examples in kind, cut to what
the 128-bit table allows (its published configurations exceed it). Its Python interface holds ciphertexts by number and
cannot save them: zeros of their size stand in for the bytes, and the server's loading and saving is not in its times.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orion  # type: ignore[import-not-found]
import orion.nn as on  # type: ignore[import-not-found]
import torch
from orion.core.orion import scheme  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import LATTICES, Floats, Workload, measure, write

CHAINS = {1: (12, [38, 30], [40]), 2: (13, [40, 30, 30, 30], [40, 40])}
"""log2 of the ring degree, primes (bits) and those of key switching by the number of layers; the second is the scale."""


class Head(on.Module):  # type: ignore[misc]
    """y = W1 x + b1, or y = W2 (W1 x + b1)² + b2."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.first, *rest = made = [on.Linear(weight.shape[1], len(weight)) for weight, _ in workload.layers]
        if rest:
            self.square, self.last = on.Quad(), rest[0]
        with torch.no_grad():
            for layer, (weight, bias) in zip(made, workload.layers, strict=True):
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))

    def forward(self, x: Any) -> Any:
        y = self.first(x)
        return self.last(self.square(y)) if hasattr(self, "last") else y


class Orion:
    """Client and server in one process: Orion's scheme is one global object that holds every key."""

    variant = "compiled torch module, Lattigo"
    security_bits = 128
    model_hidden = False
    rests_on = LATTICES
    remark = "its interface cannot save ciphertexts: bytes are by their sizes, and loading and saving are not timed"
    note = "cause not known"

    def __init__(self, workload: Workload) -> None:
        log_degree, primes, special = CHAINS[len(workload.layers)]
        degree = 1 << log_degree
        ckks = {"LogN": log_degree, "LogQ": primes, "LogP": special, "LogScale": primes[1], "H": 2 * degree // 3}
        settings = {"backend": "lattigo", "io_mode": "none", "embedding_method": "hybrid", "debug": False}
        orion.init_scheme({"ckks_params": ckks | {"RingType": "standard"}, "orion": settings})
        self._head = Head(workload)
        self._head.eval()
        orion.fit(self._head, torch.from_numpy(workload.rows[:1]).float())
        self._level = orion.compile(self._head)
        self._head.he()
        self._degree = degree
        self._held: Any = None
        powers = {pow(5, 1 << i, 2 * degree) for i in range(log_degree - 1)}  # which its evaluator always has
        rotations = len(powers | scheme.lt_evaluator.saved_rotation_keys)
        saved, _ = scheme.backend.GenerateAndSerializeRotationKey(5)
        self.key_bytes = len(saved) * (
            rotations + (len(workload.layers) > 1)
        )  # a relinearisation key has the same size
        self.version = f"Orion {version('orion-fhe')}"
        self.parameters = f"N={degree} {primes} + special {special}, scale 2^{primes[1]}"

    def _stand_in(self, held: Any) -> bytes:
        """Keep a ciphertext; as many bytes as its residues take."""
        self._held = held
        return bytes(2 * self._degree * 8 * (1 + scheme.backend.GetCiphertextLevel(held.ids[0])))

    def encrypt(self, x: Floats) -> bytes:
        encoded = orion.encode(torch.from_numpy(x[None]).float(), self._level)
        return self._stand_in(orion.encrypt(encoded))

    def evaluate(self, query: bytes) -> bytes:
        return self._stand_in(self._head(self._held))

    def decrypt(self, answer: bytes) -> Floats:
        return np.asarray(self._held.decrypt().decode()).ravel()


def main(path: str) -> None:
    """The one way it is written. Orion prints its progress, which is discarded."""
    workload = Workload.load(path)
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        row = measure(Orion(workload), workload)
    write(row)


if __name__ == "__main__":
    main(sys.argv[1])
