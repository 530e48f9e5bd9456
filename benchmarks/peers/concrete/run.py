"""Concrete, Zama's TFHE compiler, below Concrete ML: integers, plaintext weights. Usage: python run.py WORKLOAD.npz

Concrete ML itself pins an old torch of several gigabytes; what it compiles for such heads is a circuit of this compiler, which
is written here by hand: inputs and weights are quantised, a linear layer is exact on the integers, and a square is a table
lookup (a programmable bootstrap) of the sum's leading bits. The answers' errors are those of quantisation.

torch is imported by parts of the library that no head uses: a stand-in saves its gigabyte.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import LATTICES, Floats, Workload, measure, write

sys.modules["torch"] = MagicMock()
warnings.simplefilter("ignore")  # of its own packaging
from concrete import fhe  # type: ignore[import-not-found]  # noqa: E402

Integers = NDArray[np.int64]

BITS = {1: (12, 10), 2: (6, 6)}
"""Of a quantised input and weight, signs included, by the number of layers. The linear head has no table that limits them."""
TABLE_BITS = 5
"""Of a sum, that reach the square's table. One more doubles the time and the keys, and the error stays about the same."""
HEADROOM = 1.2
"""Inputs beyond those that the circuit was compiled for by this factor still fit."""
FAILURE = 2.0**-20
"""Probability that one table lookup is wrong."""


def quantised(values: Floats, bits: int) -> tuple[Integers, float]:
    """(integers of so many bits, what they were multiplied by)."""
    scale = ((1 << (bits - 1)) - 1) / float(np.abs(values).max())
    return np.rint(values * scale).astype(np.int64), scale


class Concrete:
    """The client's keys and the server's circuit in one process; inputs, keys and answers cross as bytes."""

    security_bits = 128  # the compiler's default
    model_hidden = False
    rests_on = LATTICES
    note = "quantisation to few bits"

    def __init__(self, workload: Workload) -> None:
        self._input_bits, weight_bits = BITS[len(workload.layers)]
        drawn = np.random.default_rng(0).normal(size=(100, workload.rows.shape[1]))
        drawn *= np.linalg.norm(workload.rows[0]) / np.linalg.norm(drawn, axis=1, keepdims=True)
        self._scale = quantised(HEADROOM * drawn, self._input_bits)[1]
        inputs = np.array([self._quantised_input(x) for x in drawn])
        weight, bias = workload.layers[0]
        first, scale = quantised(weight, weight_bits)
        scale *= self._scale
        offset = np.rint(bias * scale).astype(np.int64)
        if len(workload.layers) == 1:
            self._unit, self._bias = 1 / scale, np.zeros(len(bias))
            compiler = fhe.Compiler(lambda x: first @ x + offset, {"x": "encrypted"})
            quantisation = f"inputs of {self._input_bits} bits, weights of {weight_bits}"
        else:
            sum_bits = int(np.ceil(np.log2(np.abs(inputs @ first.T + offset).max()))) + 1
            lowest = max(0, sum_bits - TABLE_BITS)
            unit = ((1 << TABLE_BITS) - 1) / 4.0 ** (sum_bits - 1)  # of a table's output, for a squared sum
            weight, self._bias = workload.layers[1]
            last, last_scale = quantised(weight, weight_bits)
            self._unit = 1 / (unit * scale * scale * last_scale)

            def head(x: fhe.Tracer) -> fhe.Tracer:
                leading = fhe.round_bit_pattern(first @ x + offset, lsbs_to_remove=lowest)
                return last @ fhe.univariate(lambda z: np.rint(z * z * unit).astype(np.int64))(leading)

            compiler = fhe.Compiler(head, {"x": "encrypted"})
            quantisation = f"inputs and weights of {weight_bits} bits, squares looked up by the leading {TABLE_BITS}"
        settings = fhe.Configuration(
            p_error=FAILURE,
            rounding_exactness=fhe.Exactness.APPROXIMATE,
            dataflow_parallelize=False,
            loop_parallelize=False,
        )
        circuit = compiler.compile(list(inputs), settings)
        self._client, self._server = circuit.client, circuit.server
        keys = self._client.evaluation_keys.serialize()
        self.key_bytes = len(keys)
        self._keys = fhe.EvaluationKeys.deserialize(keys)
        self.variant = "TFHE circuit"
        self.version = f"concrete-python {version('concrete-python')}"
        bootstraps = circuit.programmable_bootstrap_count
        self.parameters = f"{bootstraps} bootstraps, each wrong with probability 2^-20 at most" if bootstraps else "LWE"
        self.remark = quantisation

    def _quantised_input(self, x: Floats) -> Integers:
        top = (1 << (self._input_bits - 1)) - 1
        return np.clip(np.rint(x * self._scale), -top, top).astype(np.int64)

    def encrypt(self, x: Floats) -> bytes:
        return bytes(self._client.encrypt(self._quantised_input(x)).serialize())

    def evaluate(self, query: bytes) -> bytes:
        return bytes(self._server.run(fhe.Value.deserialize(query), evaluation_keys=self._keys).serialize())

    def decrypt(self, answer: bytes) -> Floats:
        return np.asarray(self._client.decrypt(fhe.Value.deserialize(answer)) * self._unit + self._bias)


def main(path: str) -> None:
    """The one way it is written."""
    workload = Workload.load(path)
    write(measure(Concrete(workload), workload))


if __name__ == "__main__":
    main(sys.argv[1])
