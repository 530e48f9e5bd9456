"""TenSEAL's own vector: `CKKSVector.mm` with plaintext weights. Usage: python run.py WORKLOAD.npz

The parameters are those of SEAL's 128-bit table at ring degree 8192, as in TenSEAL's tutorials: one scale prime for a
product, three for product, square, product. `mm` encodes the weights anew in every call, so that is part of its time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tenseal as ts

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import LATTICES, Floats, Workload, measure, write

DEGREE = 8192
CHAINS = {1: ([60, 40, 60], 40), 2: ([40, 30, 30, 30, 40], 30)}
"""Primes (bits, the last for key switching) and scale (bits) by the number of layers."""


class TensealVector:
    """The client holds the whole context, the server a public copy of it."""

    security_bits = 128  # SEAL refuses a chain beyond its 128-bit table
    model_hidden = False
    rests_on = LATTICES
    remark = ""

    def __init__(self, workload: Workload, *, encrypted_bias: bool) -> None:
        primes, scale = CHAINS[len(workload.layers)]
        self.version = f"TenSEAL {ts.__version__}"
        self.parameters = f"N={DEGREE} {primes} scale 2^{scale}"
        self.variant = "mm, hidden bias encrypted" if encrypted_bias else "mm"
        self.note = (
            "mm expects its input repeated over all slots; a plaintext bias is added to the first copy alone, so the "
            "product after it is wrong"
            if len(workload.layers) > 1 and not encrypted_bias
            else "cause not known"
        )
        self._client = ts.context(
            ts.SCHEME_TYPE.CKKS, poly_modulus_degree=DEGREE, coeff_mod_bit_sizes=primes, n_threads=1
        )
        self._client.global_scale = 2**scale
        self._client.generate_galois_keys()
        keys = self._client.serialize(
            save_public_key=True, save_secret_key=False, save_galois_keys=True, save_relin_keys=len(workload.layers) > 1
        )
        self.key_bytes = len(keys)
        self._server = ts.context_from(keys, n_threads=1)
        self._weights = [ts.plain_tensor(weight.T.tolist()) for weight, _ in workload.layers]
        self._biases = [bias.tolist() for _, bias in workload.layers]
        if encrypted_bias:  # encryption repeats a vector over all slots, as `mm` expects it
            self._biases[0] = ts.ckks_vector(self._server, self._biases[0])

    def encrypt(self, x: Floats) -> bytes:
        return bytes(ts.ckks_vector(self._client, x.tolist()).serialize())

    def evaluate(self, query: bytes) -> bytes:
        y = ts.ckks_vector_from(self._server, query).mm(self._weights[0]) + self._biases[0]
        for weight, bias in zip(self._weights[1:], self._biases[1:], strict=True):
            y = y.square().mm(weight) + bias
        return bytes(y.serialize())

    def decrypt(self, answer: bytes) -> Floats:
        return np.array(ts.ckks_vector_from(self._client, answer).decrypt())


def main(path: str) -> None:
    """As the tutorials write it; for a hidden layer also as a user writes it who has found what goes wrong."""
    workload = Workload.load(path)
    for encrypted_bias in (False, True)[: len(workload.layers)]:
        write(measure(TensealVector(workload, encrypted_bias=encrypted_bias), workload))


if __name__ == "__main__":
    main(sys.argv[1])
