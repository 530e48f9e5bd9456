"""OpenFHE: CKKS, plaintext weights, the diagonal method (diagonals.py). Usage: python run.py WORKLOAD.npz

The baby steps are hoisted. Weights are encoded once, before any query.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import openfhe as fhe  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.diagonals import Diagonals, power_of_two
from peers.measure import LATTICES, Floats, Workload, measure, write

CHAINS = {1: (50, 40, 2), 2: (40, 30, 4)}
"""First prime (bits), scale (bits) and key switching digits by the number of layers.

With the digits that OpenFHE takes by itself the chain for two layers needs ring degree 16384, at twice the time and bytes.
"""


class Layer:
    """The encoded diagonals of one layer, at the level where its input arrives."""

    def __init__(self, context: Any, weight: Floats, bias: Floats, slots: int, level: int) -> None:
        self._context = context
        self._steps = steps = Diagonals.of(weight, bias, slots)
        self._vectors = [[context.MakeCKKSPackedPlaintext(u, 1, level) for u in row] for row in steps.vectors]
        self._bias = context.MakeCKKSPackedPlaintext(steps.bias, 1, level + 1)
        self.rotations = steps.rotations()
        """The steps that need a key."""

    def __call__(self, x: Any) -> Any:
        """W x + b, one level lower."""
        context = self._context
        digits = context.EvalFastRotationPrecompute(x)
        rotated = [x, *(context.EvalFastRotation(x, b, digits) for b in range(1, self._steps.babies))]
        y = None
        for diagonals in reversed(self._vectors):  # Horner: every giant step is the same rotation
            inner = context.EvalAddMany([context.EvalMult(r, u) for r, u in zip(rotated, diagonals, strict=True)])
            y = inner if y is None else context.EvalAdd(context.EvalRotate(y, self._steps.babies), inner)
        y = context.Rescale(y)
        for step in self._steps.folds:
            y = context.EvalAdd(y, context.EvalRotate(y, step))
        return context.EvalAdd(y, self._bias)


class OpenfheDiagonal:
    """Client and server in one process, because OpenFHE holds evaluation keys globally; ciphertexts cross as bytes."""

    variant = "diagonals, baby steps and giant steps"
    security_bits = 128
    model_hidden = False
    rests_on = LATTICES
    remark = ""
    note = "cause not known"

    def __init__(self, workload: Workload) -> None:
        deep = len(workload.layers) > 1
        first, scale, digits = CHAINS[len(workload.layers)]
        self._slots = max(power_of_two(n) for weight, _ in workload.layers for n in weight.shape)
        parameters = fhe.CCParamsCKKSRNS()
        parameters.SetSecurityLevel(fhe.HEStd_128_classic)
        parameters.SetMultiplicativeDepth(3 if deep else 1)
        parameters.SetFirstModSize(first)
        parameters.SetScalingModSize(scale)
        parameters.SetNumLargeDigits(digits)
        parameters.SetScalingTechnique(fhe.FIXEDMANUAL)
        parameters.SetBatchSize(self._slots)
        self._context = context = fhe.GenCryptoContext(parameters)
        for feature in (fhe.PKE, fhe.KEYSWITCH, fhe.LEVELEDSHE, fhe.ADVANCEDSHE):
            context.Enable(feature)
        self._keys = context.KeyGen()
        self._layers = [
            Layer(context, weight, bias, self._slots, 2 * i) for i, (weight, bias) in enumerate(workload.layers)
        ]
        context.EvalRotateKeyGen(self._keys.secretKey, sorted(set().union(*(x.rotations for x in self._layers))))
        self.key_bytes = len(fhe.SerializeEvalAutomorphismKeyString(fhe.BINARY))
        if deep:
            context.EvalMultKeyGen(self._keys.secretKey)
            self.key_bytes += len(fhe.SerializeEvalMultKeyString(fhe.BINARY))
        self.version = f"OpenFHE {fhe.__version__}"
        depth = 3 if deep else 1
        self.parameters = f"N={context.GetRingDimension()} {[first] + [scale] * depth} + special, scale 2^{scale}"

    def encrypt(self, x: Floats) -> bytes:
        plaintext = self._context.MakeCKKSPackedPlaintext(np.pad(x, (0, self._slots - len(x))))
        return bytes(fhe.Serialize(self._context.Encrypt(self._keys.publicKey, plaintext), fhe.BINARY))

    def evaluate(self, query: bytes) -> bytes:
        y = self._layers[0](fhe.DeserializeCiphertextString(query, fhe.BINARY))
        for layer in self._layers[1:]:
            y = layer(self._context.Rescale(self._context.EvalSquare(y)))
        return bytes(fhe.Serialize(y, fhe.BINARY))

    def decrypt(self, answer: bytes) -> Floats:
        plaintext = self._context.Decrypt(fhe.DeserializeCiphertextString(answer, fhe.BINARY), self._keys.secretKey)
        return np.array(plaintext.GetRealPackedValue())


def main(path: str) -> None:
    """The one way it is written."""
    workload = Workload.load(path)
    write(measure(OpenfheDiagonal(workload), workload))


if __name__ == "__main__":
    main(sys.argv[1])
