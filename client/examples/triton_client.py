"""Existing tooling, encrypted: NVIDIA's tritonclient asks the server, and carries nothing but ciphertext.

The SDK encrypts measurements of cells and decrypts the answers; everything between is the Open Inference Protocol, as Triton
and KServe speak it. Takes `pip install 'tritonclient[grpc]'`. Run it from anywhere: it serves the packaged head on loopback.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import tritonclient.grpc as triton

import secure_infer.models
from secure_infer_client import samples
from secure_infer_client.local_server import LocalServer
from secure_infer_client.open_inference import DATATYPE, INPUT, OUTPUT, OpenInferenceClient

HEAD = Path(secure_infer.models.__file__).with_name("wdbc.head")


def main() -> None:
    rows, labels = samples.wdbc()
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(HEAD, directory)
        with (
            LocalServer(Path(directory), "--open-inference") as server,
            OpenInferenceClient(server.address, model="wdbc") as client,
            triton.InferenceServerClient(server.address) as sender,
        ):
            query = client.encrypt(rows[:8])
            tensor = triton.InferInput(INPUT, query.ciphertexts.shape, DATATYPE)
            tensor.set_data_from_numpy(query.ciphertexts)
            result = sender.infer(
                query.model_name,
                [tensor],
                model_version=query.model_version,
                request_id=query.request_id,
                parameters=query.parameters,
            )
            answer = result.get_response()
            logits = client.decrypt(query, result.as_numpy(OUTPUT), answer.model_version, answer.id)
            for label, found in zip(labels[:8], client.spec.decide(logits), strict=True):
                sys.stdout.write(f"answered {found:<9}  known to be {label}\n")
            sys.stdout.write(f"sent {query.ciphertexts.nbytes:,} bytes of ciphertext for {len(logits)} rows\n")


if __name__ == "__main__":
    main()
