"""One process of stock CrypTen: a compute party (RANK 0 or 1) or the trusted third party (RANK 2).

    python party.py TTP|TFP PORT

connects to the client at PORT on loopback and answers its frames (wire.py); CrypTen's own settings come in its environment
variables. CrypTen is as it is published; only its importer of ONNX models, which does not load with current torch, is
replaced by an empty module before the import. Ends when standard input closes.
"""

from __future__ import annotations

import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.wire import MODEL, TRIAL, connected, end_with_client, receive, send

importer = ModuleType("crypten.nn.onnx_converter")
importer.__dict__.update(dict.fromkeys(("from_onnx", "from_pytorch", "from_tensorflow", "TF_AND_TF2ONNX")))
sys.modules[importer.__name__] = importer

crypten: Any = import_module("crypten")

FRACTION_BITS = 16
"""CrypTen's default."""


class Model:
    """A head y = W2 f(W1 x + b1) + b2 or y = W1 x + b1, evaluated on shares.

    arrays: W1, b1, ... (float64 when both parties hold the weights, else int64 shares of this party), activation ("square"
    or "relu") and answers ("logits", or "label" for the one-hot winner).
    """

    def __init__(self, arrays: Any) -> None:
        self._layers = [
            tuple(self._loaded(a) for a in (arrays[f"W{i}"].T, arrays[f"b{i}"])) for i in (1, 2) if f"W{i}" in arrays
        ]
        self._activation = str(arrays["activation"])
        self._label = str(arrays["answers"]) == "label"

    @staticmethod
    def _loaded(array: Any) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if array.dtype == np.float64:
            return tensor.float()
        return crypten.mpc.MPCTensor.from_shares(tensor, precision=FRACTION_BITS)

    @property
    def features(self) -> int:
        return int(self._layers[0][0].size(0))

    def evaluate(self, share: Any) -> Any:
        """The CrypTen tensor of answers (B, K) for this party's share (B, d) of the rows."""
        y = crypten.mpc.MPCTensor.from_shares(torch.from_numpy(share), precision=FRACTION_BITS)
        for i, (weight, bias) in enumerate(self._layers):
            if i:
                y = y.relu() if self._activation == "relu" else y.square()
            y = y.matmul(weight) + bias
        return y.argmax(dim=-1) if self._label else y


def answer(model: Model, kind: bytes, body: bytearray) -> bytes:
    """The share of the answers as words, or for a trial what they took, as JSON."""
    share = np.frombuffer(body, np.int64).reshape(-1, model.features)
    communicator = crypten.communicator.get()
    crypten.cfg.communicator.verbose = kind == TRIAL
    communicator.reset_communication_stats()
    with crypten.no_grad():
        y = model.evaluate(share)
    if kind != TRIAL:
        return bytes(y.share.numpy().tobytes())
    counted = communicator.get_communication_stats()
    return json.dumps({"scale": int(y.encoder.scale), "rounds": counted["rounds"], "bytes": counted["bytes"]}).encode()


def main(provider: str, port: str) -> None:
    Thread(target=end_with_client, daemon=True).start()
    torch.set_num_threads(1)
    crypten.cfg.mpc.provider = provider
    if os.environ["RANK"] == "2":
        crypten.mpc.provider.TTPServer()
        return
    crypten.init()
    with connected(port, os.environ["RANK"]) as client:
        while True:
            kind, body = receive(client)
            if kind == MODEL:
                with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                    model = Model(arrays)
                send(client, MODEL, b"")
            else:
                send(client, kind, answer(model, kind, body))


if __name__ == "__main__":
    main(*sys.argv[1:])
