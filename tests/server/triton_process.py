"""A process that knows tritonclient and nothing of this project: it sends the queries it finds in a folder.

    python triton_process.py FOLDER

FOLDER/job.json    address, tls (keyword arguments, or null), model, and queries: name, model, version, id, parameters, shape
FOLDER/NAME.in     the bytes of a query; the products of its answer go to NAME.out
FOLDER/report.json what came back
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException


def infer(client: triton.InferenceServerClient, folder: Path, query: dict[str, Any]) -> dict[str, Any]:
    data = np.frombuffer((folder / f"{query['name']}.in").read_bytes(), np.uint8).reshape(query["shape"])
    tensor = triton.InferInput("ciphertexts", data.shape, "UINT8")
    tensor.set_data_from_numpy(data)
    try:
        result = client.infer(
            query["model"],
            [tensor],
            model_version=query["version"],
            outputs=[triton.InferRequestedOutput("products")],
            request_id=query["id"],
            parameters=query["parameters"],
        )
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    products, answer = result.as_numpy("products"), result.get_response()
    (folder / f"{query['name']}.out").write_bytes(products.tobytes())
    times = {name: value.int64_param for name, value in answer.parameters.items()}
    return {"shape": products.shape, "version": answer.model_version, "id": answer.id, "times": times}


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    with triton.InferenceServerClient(job["address"], ssl=bool(job["tls"]), **(job["tls"] or {})) as client:
        report = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(job["model"]),
            "server": client.get_server_metadata(as_json=True),
            "model": client.get_model_metadata(job["model"], as_json=True),
            "answers": {query["name"]: infer(client, folder, query) for query in job["queries"]},
        }
    protocol = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(protocol)
    (folder / "protocol.bin").write_bytes(protocol.SerializeToString())
    report["ours"] = [name for name in sys.modules if name.startswith("secure_infer")]
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
