"""The Open Inference Protocol with a client that is not ours: tritonclient, in a process of its own.

This process encrypts and decrypts; that one sends, and holds no module of this project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from secure_infer.v1 import inference_pb2
from secure_infer_client import Client
from secure_infer_client.open_inference import OpenInferenceClient, Query
from secure_infer_server.app import App
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.commands import certs
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.keys.names import owner_of
from secure_infer_server.open_inference.v2 import inference_pb2 as open_pb2
from secure_infer_server.settings import Settings, Tls
from secure_infer_server.workers.settings import WorkerSettings
from shared import hidden_head, linear_head, unit_rows

pytestmark = pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient[grpc] is not installed")

HEADS = {"linear": linear_head(8, 3), "hidden": hidden_head((600, 4, 2))}


class Served:
    """A server with mutual TLS, budgets and audit, and what a client needs to reach it."""

    def __init__(self, path: Path) -> None:
        self.path, self.pki = path, certs.make(path / "pki", ["localhost", "127.0.0.1"], "ward-7", 2)
        (path / "models").mkdir()
        for name, head in HEADS.items():
            head.save(path / "models" / f"{name}.head")
        self.gate = GuardedGate(
            GuardSettings(
                budgets=BudgetSettings(path / "budgets.sqlite", Allowance(total=100), block=1),
                audit=AuditSettings(path / "log", key=path / "audit.key", commit=0.0),
            )
        )
        tls = Tls(self.pki["server.pem"], self.pki["server.key"], self.pki["ca.pem"])
        settings = Settings(
            path / "models", "127.0.0.1", 0, tls=tls, open_inference=True, workers=WorkerSettings(count=0)
        )
        self.app = App(settings, self.gate)
        self.gate.start()
        self.address = self.app.start()

    @property
    def own(self) -> dict[str, str]:
        """As the SDK and tritonclient name them."""
        names = {"root_certificates": "ca.pem", "private_key": "client.key", "certificate_chain": "client.pem"}
        return {name: str(self.pki[file]) for name, file in names.items()}

    def entries(self) -> list[dict[str, Any]]:
        assert self.gate._audit is not None
        assert self.gate._audit.flush(10)
        lines = (self.path / "log" / "audit-00000001.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if "who" in entry]

    def used(self, model: str) -> int:
        assert self.gate._budgets is not None
        return self.gate._budgets.used("cn:ward-7", bytes.fromhex(HEADS[model].digest)).total


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.app.stop()
    made.gate.close()


def send(folder: Path, served: Served, model: str, **queries: Query) -> dict[str, Any]:
    """Have tritonclient send the queries."""
    job: dict[str, Any] = {"address": served.address, "tls": served.own, "model": model, "queries": []}
    for name, query in queries.items():
        (folder / f"{name}.in").write_bytes(query.ciphertexts.tobytes())
        fields = {"name": name, "model": query.model_name, "version": query.model_version, "id": query.request_id}
        job["queries"].append(fields | {"parameters": dict(query.parameters), "shape": query.ciphertexts.shape})
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("triton_process.py")
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def products(folder: Path, name: str, report: dict[str, Any]) -> np.ndarray:
    return np.frombuffer((folder / f"{name}.out").read_bytes(), np.uint8).reshape(report["answers"][name]["shape"])


@pytest.mark.parametrize("model", HEADS)
def test_tritonclient_carries_queries_and_answers(served: Served, tmp_path: Path, model: str) -> None:
    head, rows = HEADS[model], unit_rows(3, HEADS[model].features)

    def entered() -> list[dict[str, Any]]:
        return [e for e in served.entries() if e["method"].endswith("/ModelInfer") and e["model"] == model]

    used, before = served.used(model), len(entered())  # by tests that ran before on this server
    with OpenInferenceClient(served.address, model=model, **served.own) as client:
        query, single = client.encrypt(rows[:2]), client.encrypt(rows[2:])
        report = send(tmp_path, served, model, query=query, again=query, single=single)
        for name, sent, expected in (("query", query, rows[:2]), ("single", single, rows[2:])):
            answer = report["answers"][name]
            logits = client.decrypt(sent, products(tmp_path, name, report), answer["version"], answer["id"])
            assert np.abs(logits - head.evaluate(expected)).max() <= client.plan.error_bound
        plan = client.plan
    assert (report["live"], report["ready"], report["model_ready"], report["ours"]) == (True, True, True, [])
    assert report["server"]["extensions"] == ["secure_infer.v1.ModelService", "secure_infer.v1.KeyService"]
    described = report["model"]
    assert (described["name"], described["platform"]) == (model, "secure_infer_ckks")
    assert query.model_version in described["versions"]
    if query.model_version == described["versions"][0]:
        shape = ["-1", str(plan.ciphertexts), str(plan.ciphertext_bytes)]
        assert described["inputs"] == [{"name": "ciphertexts", "datatype": "UINT8", "shape": shape}]
    assert report["answers"]["query"]["times"]["total_us"] > 0
    # The identical request was not evaluated again: same flood, no charge.
    assert (tmp_path / "query.out").read_bytes() == (tmp_path / "again.out").read_bytes()
    assert served.used(model) == used + 3
    found = entered()[before:]
    assert [(e["who"], e["outcome"], e.get("records", 0)) for e in found] == [
        ("cn:ward-7", "ok", 2),
        ("cn:ward-7", "ok", 0),
        ("cn:ward-7", "ok", 1),
    ]
    assert {e["plan_digest"] for e in found} == {plan.digest}


def test_errors_arrive_as_statuses(served: Served, tmp_path: Path) -> None:
    with OpenInferenceClient(served.address, model="linear", **served.own) as client:
        query = client.encrypt(unit_rows(1, 8))
        unknown = replace(query, model_name="nothing", request_id="1")
        changed = replace(query, model_version="00" * 32 + query.model_version[64:], request_id="2")
        answers = send(tmp_path, served, "linear", unknown=unknown, changed=changed)["answers"]
    assert answers["unknown"]["status"] == "StatusCode.NOT_FOUND"
    assert "served: hidden, linear" in answers["unknown"]["message"]
    assert answers["changed"]["status"] == "StatusCode.FAILED_PRECONDITION"
    assert "pinned 000000000000" in answers["changed"]["message"]


def test_a_key_that_was_forgotten_is_sent_again(served: Served, tmp_path: Path) -> None:
    rows = unit_rows(1, 8)
    with OpenInferenceClient(served.address, model="linear", **served.own) as client:
        query = client.encrypt(rows)
        served.app.front.clients.vault.delete(owner_of("cn:ward-7"))
        refused = send(tmp_path, served, "linear", query=query)["answers"]["query"]
        assert refused["status"] == "StatusCode.FAILED_PRECONDITION"
        assert "secure_infer.v1.KeyService/UploadKeys" in refused["message"]
        client.upload_keys(query)
        report = send(tmp_path, served, "linear", query=query)
        answer = report["answers"]["query"]
        logits = client.decrypt(query, products(tmp_path, "query", report), answer["version"], answer["id"])
        assert np.abs(logits - HEADS["linear"].evaluate(rows)).max() <= client.plan.error_bound


def test_both_doors_are_one(served: Served, tmp_path: Path) -> None:
    """A request that our own service answered gets the same answer by the other protocol."""
    with OpenInferenceClient(served.address, model="linear", **served.own) as client:
        query, before = client.encrypt(unit_rows(1, 8)), served.used("linear")
        answered: inference_pb2.InferResponse = client._own._inference.Infer(query.encrypted.request, timeout=10)
        report = send(tmp_path, served, "linear", query=query)
    assert products(tmp_path, "query", report)[0, 0].tobytes() == answered.answers.answers[0].products[0]
    assert served.used("linear") == before + 1


def test_the_protocol_is_theirs(served: Served, tmp_path: Path) -> None:
    """Every message and method of our file has the fields, numbers and types that theirs has."""
    send(tmp_path, served, "linear")
    theirs = descriptor_pb2.FileDescriptorProto.FromString((tmp_path / "protocol.bin").read_bytes())
    ours = descriptor_pb2.FileDescriptorProto()
    open_pb2.DESCRIPTOR.CopyToProto(ours)
    assert ours.package == theirs.package
    messages = {message.name: message for message in theirs.message_type}
    for message in ours.message_type:
        assert fields(message) == fields(messages[message.name])
    methods = {method.name: method for method in theirs.service[0].method}
    for method in ours.service[0].method:
        known = methods[method.name]
        assert (method.input_type, method.output_type) == (known.input_type, known.output_type)


def fields(message: Any) -> Any:
    own = {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
    return own, {nested.name: fields(nested) for nested in message.nested_type}


def test_the_sdk_beside_it_is_unchanged(served: Served) -> None:
    with Client(served.address, model="linear", **served.own) as client:
        rows = unit_rows(2, 8)
        assert np.abs(client.predict(rows) - HEADS["linear"].evaluate(rows)).max() <= client.plan.error_bound
