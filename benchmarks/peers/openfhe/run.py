"""OpenFHE: CKKS, plaintext weights, the diagonal method. Usage: python run.py WORKLOAD.npz

A layer W (K, d), both padded to powers of two, is evaluated over slots that repeat x (Halevi and Shoup, CRYPTO 2014,
in the rectangular form of Gazelle, USENIX Security 2018). With u_i[j] = W[j mod K, (j + i) mod d] for i < K:

    y = fold(sum_i u_i * rotate(x, i)),    fold: add rotations by d/2, d/4, ..., K

    K = 2, d = 4:   u_0 = W00 W11 W02 W13,  u_1 = W01 W12 W03 W10;  slot 0 after the fold by 2: W00 x0 + W02 x2 + W01 x1 + W03 x3

Rotations are split i = g B + b: the B baby steps are hoisted, the giant steps rotate sums (u is rotated back beforehand).
y comes out repeated with period K, which is what the next layer expects. Weights are encoded once, before any query.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import openfhe as fhe  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import Floats, Workload, measure, write

CHAINS = {1: (50, 40, 2), 2: (40, 30, 4)}
"""First prime (bits), scale (bits) and key switching digits by the number of layers.

With the digits that OpenFHE takes by itself the chain for two layers needs ring degree 16384, at twice the time and bytes.
"""


def power_of_two(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


class Layer:
    """The encoded diagonals of one layer, at the level where its input arrives."""

    def __init__(self, context: Any, weight: Floats, bias: Floats, slots: int, level: int) -> None:
        outputs, features = (power_of_two(n) for n in weight.shape)
        features = max(features, outputs)
        self.babies = power_of_two(int(np.sqrt(outputs)))
        self.giants = outputs // self.babies
        self.folds = [outputs << k for k in reversed(range((features // outputs).bit_length() - 1))]
        padded = np.zeros((outputs, features))
        padded[: weight.shape[0], : weight.shape[1]] = weight
        self._context = context
        j = np.arange(slots)
        self._diagonals = [
            [
                context.MakeCKKSPackedPlaintext(
                    np.roll(padded[j % outputs, (j + g * self.babies + b) % features], g * self.babies), 1, level
                )
                for b in range(self.babies)
            ]
            for g in range(self.giants)
        ]
        bias = np.pad(bias, (0, outputs - len(bias)))
        self._bias = context.MakeCKKSPackedPlaintext(bias[j % outputs], 1, level + 1)

    def rotations(self) -> set[int]:
        """The steps that need a key."""
        return {*range(1, self.babies), *({self.babies} if self.giants > 1 else ()), *self.folds}

    def __call__(self, x: Any) -> Any:
        """W x + b, one level lower."""
        context = self._context
        digits = context.EvalFastRotationPrecompute(x)
        rotated = [x, *(context.EvalFastRotation(x, b, digits) for b in range(1, self.babies))]
        y = None
        for diagonals in reversed(self._diagonals):  # Horner: every giant step is the same rotation
            inner = context.EvalAddMany([context.EvalMult(r, u) for r, u in zip(rotated, diagonals, strict=True)])
            y = inner if y is None else context.EvalAdd(context.EvalRotate(y, self.babies), inner)
        y = context.Rescale(y)
        for step in self.folds:
            y = context.EvalAdd(y, context.EvalRotate(y, step))
        return context.EvalAdd(y, self._bias)


class OpenfheDiagonal:
    """Client and server in one process, because OpenFHE holds evaluation keys globally; ciphertexts cross as bytes."""

    variant = "diagonals, baby steps and giant steps"
    security_bits = 128
    model_hidden = False
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
        context.EvalRotateKeyGen(self._keys.secretKey, sorted(set().union(*(x.rotations() for x in self._layers))))
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
