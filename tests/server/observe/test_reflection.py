"""Reflection: off unless asked for, and behind the gate like any other method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.callers.permissions import PermissionSettings
from secure_infer_server.guarded import CallerSettings, GuardedGate, GuardSettings
from server.observe.serving import running
from shared import linear_head

POLICY = """
[roles]
client = ["anonymous"]
[[allow]]
roles = ["client"]
methods = ["ModelService/*"]
"""
ALLOWED = POLICY + '[[allow]]\nroles = ["client"]\nmethods = ["grpc.reflection.v1alpha.ServerReflection/*"]\n'


def ask(address: str, **question: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        return next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    linear_head(8, 3).save(path / "cheap.head")
    return path


def guarded(path: Path, policy: str) -> GuardedGate:
    (path / "policy.toml").write_text(policy)
    permissions = PermissionSettings(path / "policy.toml")
    audit = AuditSettings(path / "log", key=path / "audit.key", commit=0.0)
    return GuardedGate(GuardSettings(callers=CallerSettings(permissions=permissions), audit=audit))


def test_services_and_their_messages_are_told(models: Path) -> None:
    with running(models, reflection=True) as server:
        services = {one.name for one in ask(server.address, list_services="").list_services_response.service}
        assert {"secure_infer.v1.InferenceService", "grpc.health.v1.Health"} <= services
        found = ask(server.address, file_containing_symbol="secure_infer.v1.InferenceService")
        names = [
            FileDescriptorProto.FromString(data).name for data in found.file_descriptor_response.file_descriptor_proto
        ]
        assert "secure_infer/v1/inference.proto" in names
        assert ask(server.address, file_containing_symbol="no.such").error_response.error_code == 5


def test_it_is_off_by_default(models: Path) -> None:
    with running(models) as server, pytest.raises(grpc.RpcError) as refused:
        ask(server.address, list_services="")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_whom_no_rule_allows_it_sees_nothing(models: Path, tmp_path: Path) -> None:
    gate = guarded(tmp_path, POLICY)
    try:
        with running(models, gate, reflection=True) as server, pytest.raises(grpc.RpcError) as refused:
            ask(server.address, list_services="")
    finally:
        gate.close()
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert b'"outcome":"PERMISSION_DENIED"' in b"".join(
        path.read_bytes() for path in (tmp_path / "log").glob("*.jsonl")
    )


def test_a_rule_allows_it(models: Path, tmp_path: Path) -> None:
    gate = guarded(tmp_path, ALLOWED)
    try:
        with running(models, gate, reflection=True) as server:
            assert ask(server.address, list_services="").list_services_response.service
    finally:
        gate.close()
