"""HElayers: its own packing and planning of an ONNX model, plaintext weights. Usage: python run.py WORKLOAD.npz

The model is compiled for one row a query, once over Microsoft SEAL and once over OpenFHE; the server works on a copy of the
context without secret key. HElayers as published on the package index is free for non-commercial use only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx  # type: ignore[import-not-found]
import pyhelayers as helayers  # type: ignore[import-not-found]
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.measure import LATTICES, Floats, Workload, measure, rows_alone, write

FRACTION_BITS = 30
"""Asked of its planner, whose default of 50 takes a larger ring for answers more precise than needed here."""


def model(workload: Workload) -> bytes:
    """The head as an ONNX model of one row; the square is a product of a tensor with itself."""
    nodes, weights, name = [], [], "x"
    for i, (weight, bias) in enumerate(workload.layers, 1):
        if i > 1:
            nodes.append(helper.make_node("Mul", [name, name], ["square"]))
            name = "square"
        weights += [numpy_helper.from_array(a.astype(np.float32), f"{n}{i}") for n, a in (("W", weight), ("b", bias))]
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [f"y{i}"], transB=1))
        name = f"y{i}"
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, array.shape[1]])
        for end, array in (("x", workload.rows), (name, workload.logits))
    ]
    graph = helper.make_graph(nodes, "head", ends[:1], ends[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


class Helayers:
    """One library below HElayers."""

    security_bits = 128  # asked for below
    model_hidden = False
    rests_on = LATTICES
    remark = "free for non-commercial use only"
    note = "cause not known"

    def __init__(self, workload: Workload, library: str, context: Any) -> None:
        wanted = helayers.HeRunRequirements()
        wanted.set_he_context_options([context])
        wanted.set_security_level(128)
        wanted.optimize_for_batch_size(1)
        wanted.set_model_encrypted(False)
        wanted.set_fractional_part_precision(FRACTION_BITS)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "head.onnx"
            file.write_bytes(model(workload))
            plain = helayers.PlainModel.create(helayers.PlainModelHyperParams(), [str(file)])
        profile = helayers.HeModel.compile(plain, wanted)
        if profile is None:
            raise SystemExit(f"HElayers finds no parameters for this head over {library}")
        self._client = helayers.HeModel.create_context(profile)
        public = self._client.save_to_buffer()
        self.key_bytes = len(public)
        self._server = helayers.load_he_context(public)
        if self._server.has_secret_key():
            raise SystemExit("HElayers saved the secret key along with the public ones")
        self._model = plain.get_empty_he_model(self._server)
        self._model.encode(plain, profile)
        self._io = helayers.load_io_encoder(self._client, self._model.create_model_io_encoder().save_to_buffer())
        self.variant = f"ONNX model over {library}"
        self.version = f"HElayers {helayers.VERSION}"
        chain = self._client.get_top_chain_index()
        levels = "1 level" if chain == 1 else f"{chain} levels"
        self.parameters = f"N={2 * self._client.slot_count()}, {levels}, {FRACTION_BITS} fraction bits asked for"

    def encrypt(self, x: Floats) -> bytes:
        query = helayers.EncryptedData(self._client)
        self._io.encode_encrypt(query, [x[None]])
        return bytes(query.save_to_buffer())

    def evaluate(self, query: bytes) -> bytes:
        answer = helayers.EncryptedData(self._server)
        self._model.predict(answer, helayers.load_encrypted_data(self._server, query))
        return bytes(answer.save_to_buffer())

    def decrypt(self, answer: bytes) -> Floats:
        return np.asarray(self._io.decrypt_decode_output(helayers.load_encrypted_data(self._client, answer))).ravel()


def main(path: str) -> None:
    """Each library in turn. HElayers' planner prints what it rejects."""
    rows_alone()
    workload = Workload.load(path)
    for library, context in (("SEAL", helayers.SealCkksContext), ("OpenFHE", helayers.OpenFheCkksContext)):
        write(measure(Helayers(workload, library, context()), workload))


if __name__ == "__main__":
    main(sys.argv[1])
