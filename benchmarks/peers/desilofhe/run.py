"""desilofhe: CKKS, plaintext weights, the diagonal method (diagonals.py). Usage: python run.py WORKLOAD.npz

An engine is asked for levels alone: ring degree and primes are the library's choice. Weights are encoded once, before any
query. This work uses the DESILO FHE library developed by DESILO Inc. (https://desilo.ai), which is free for non-commercial
use only.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from desilofhe import Engine  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.diagonals import Diagonals
from peers.measure import LATTICES, Floats, Workload, measure, write


class Layer:
    """The encoded diagonals of one layer, at the level where its input arrives."""

    def __init__(self, engine: Any, weight: Floats, bias: Floats, level: int) -> None:
        self._engine = engine
        self._steps = steps = Diagonals.of(weight, bias, engine.slot_count)
        self._vectors = [[engine.encode(u, level) for u in row] for row in steps.vectors]
        self._bias = engine.encode(steps.bias, level - 1)
        self.rotations = steps.rotations()
        """The steps that need a key."""

    def __call__(self, x: Any, keys: dict[int, Any]) -> Any:
        """W x + b, one level lower."""
        engine, steps = self._engine, self._steps
        babies = [keys[step] for step in range(1, steps.babies)]
        rotated = [x, *(engine.rotate_many(x, babies) if babies else ())]
        y = None
        for vectors in reversed(self._vectors):  # Horner: every giant step is the same rotation
            inner = engine.multiply(rotated[0], vectors[0])
            for one, vector in zip(rotated[1:], vectors[1:], strict=True):
                inner = engine.add(inner, engine.multiply(one, vector))
            y = inner if y is None else engine.add(engine.rotate(y, keys[steps.babies]), inner)
        for step in steps.folds:
            y = engine.add(y, engine.rotate(y, keys[step]))
        return engine.add(y, self._bias)


class DesiloDiagonal:
    """Client and server in one process; keys are made here, ciphertexts cross as bytes."""

    variant = "diagonals, baby steps and giant steps"
    security_bits = None
    model_hidden = False
    rests_on = LATTICES
    remark = "free for non-commercial use only; the package does not state its security level"
    note = "cause not known"

    def __init__(self, workload: Workload) -> None:
        deep = len(workload.layers) > 1
        levels = 3 if deep else 1
        self._engine = engine = Engine(max_level=levels, mode="cpu", thread_count=1)
        self._secret = engine.create_secret_key()
        self._layers = [Layer(engine, w, b, levels - 2 * i) for i, (w, b) in enumerate(workload.layers)]
        steps = sorted(set().union(*(layer.rotations for layer in self._layers)))
        self._rotations = {step: engine.create_fixed_rotation_key(self._secret, step) for step in steps}
        self._relinearization = engine.create_relinearization_key(self._secret) if deep else None
        self.key_bytes = sum(len(engine.serialize_fixed_rotation_key(key)) for key in self._rotations.values())
        if deep:
            self.key_bytes += len(engine.serialize_relinearization_key(self._relinearization))
        self.version = f"desilofhe {version('desilofhe')}"
        self.parameters = f"N={2 * engine.slot_count}, {levels} level{'s' * deep}, primes of the library's choice"
        self._copies = engine.slot_count >> (workload.rows.shape[1] - 1).bit_length()

    def encrypt(self, x: Floats) -> bytes:
        padded = np.pad(x, (0, self._engine.slot_count // self._copies - len(x)))
        encrypted = self._engine.encrypt(np.tile(padded, self._copies), self._secret)
        return bytes(self._engine.serialize_ciphertext(encrypted))

    def evaluate(self, query: bytes) -> bytes:
        engine = self._engine
        y = self._layers[0](engine.deserialize_ciphertext(query), self._rotations)
        for layer in self._layers[1:]:
            y = layer(engine.square(y, self._relinearization), self._rotations)
        return bytes(engine.serialize_ciphertext(y))

    def decrypt(self, answer: bytes) -> Floats:
        return np.asarray(self._engine.decrypt(self._engine.deserialize_ciphertext(answer), self._secret))


def main(path: str) -> None:
    """The one way it is written."""
    workload = Workload.load(path)
    write(measure(DesiloDiagonal(workload), workload))


if __name__ == "__main__":
    main(sys.argv[1])
