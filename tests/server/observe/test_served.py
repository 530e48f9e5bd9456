"""What a running server shows of its calls: metrics over HTTP, spans, probes."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind, StatusCode

from secure_infer.errors import CATALOGUE, AuditUnavailable, MalformedRequest, SettingsError, UnknownModel
from secure_infer.v1 import inference_pb2, models_pb2, models_pb2_grpc
from secure_infer_client import Client, transport
from secure_infer_server.audit import AuditSettings, journal
from secure_infer_server.callers.credentials import InForce, server_credentials
from secure_infer_server.commands import certs
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.observe import calls, tracing
from secure_infer_server.observe.collectors import CertificateMetrics
from secure_infer_server.observe.figures import REFUSED, TOTAL
from secure_infer_server.observe.health import LIVENESS, READINESS
from server.observe.serving import INFER, Running, running
from shared import hidden_head, linear_head, unit_rows, until

NAMED = "InferenceService/Infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("models")
    linear_head(8, 3).save(path / "cheap.head")
    hidden_head((600, 4, 2)).save(path / "slow.head")
    with running(path, workers=1) as found:
        with Client(found.address, model="cheap") as client:
            client.predict(unit_rows(2, 8))
        with Client(found.address, model="slow") as client:
            client.predict(unit_rows(1, 600))
        yield found


def infer(address: str, metadata: Any = (), **fields: Any) -> Any:
    request = inference_pb2.InferRequest(**fields)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER, inference_pb2.InferRequest.SerializeToString)
        return transport.call(address, 10, lambda: call(request, timeout=10, metadata=metadata))


def test_stages_by_method_model_and_plan(server: Running) -> None:
    samples = server.families()["secure_infer_request_seconds"].samples
    counts = {
        (each.labels["model"], each.labels["plan"], each.labels["stage"]): each.value
        for each in samples
        if each.name.endswith("_count") and each.labels["method"] == NAMED
    }
    for stage in ("load", "evaluate", TOTAL):
        assert counts["cheap", "coefficient", stage] == 1
        assert counts["slow", "slots", stage] == 1
    assert counts["slow", "slots", "queue"] == 1  # evaluated by a worker
    assert ("cheap", "coefficient", "queue") not in counts


def test_metrics_of_the_servers_state(server: Running) -> None:
    assert server.value("ready") == 1
    assert server.value("requests_total", method=NAMED, model="cheap", outcome="ok") == 1
    assert server.value("request_bytes_total", method=NAMED, model="slow", direction="in") > 10_000
    assert server.value("request_bytes_total", method=NAMED, model="slow", direction="out") > 1_000
    assert server.value("workers", work="queries") == 1
    assert server.value("workers_resident_bytes", work="queries") > 1e7
    assert server.value("queue_requests") == 0
    assert server.value("keys") == server.value("keys_ready") == 2
    assert server.value("keys_bytes") > 1e6
    assert server.value("key_store_up") == 1
    assert server.value("model_versions", model="cheap") == 1
    blinds = [server.value("blinds_total", model="cheap", source=source) for source in ("ready", "inline")]
    assert sum(blinds) == 2  # a call of two queries


def test_a_worker_that_dies_is_counted(server: Running) -> None:
    before = server.value("worker_restarts_total", work="queries", reason="died")
    os.kill(server.app.front.pool.pids()[0], signal.SIGKILL)
    until(lambda: server.value("worker_restarts_total", work="queries", reason="died") == before + 1)
    until(lambda: server.value("workers", work="queries") == 1)


def test_callers_make_no_labels(server: Running) -> None:
    """Whatever they write: models that are not served, methods that do not exist, ids."""
    infer_many = [b"m" * 32, b"not a digest"]
    before = server.families()["secure_infer_requests"].samples
    for number in range(30):
        with pytest.raises((UnknownModel, MalformedRequest)):
            infer(server.address, model=f"patient {number}", plan_digest=infer_many[number % 2])
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/secure_infer.v1.InferenceService/Patient{number}")(b"", timeout=10)
    refused = {"method": NAMED, "model": "", "outcome": "UNKNOWN_MODEL"}
    until(lambda: server.value("requests_total", **refused) == 30)
    after = server.families()["secure_infer_requests"].samples
    assert len(after) <= len(before) + 1
    outcomes = {each.labels["outcome"] for each in after}
    assert outcomes <= {calls.OK, calls.CANCELLED, "unknown_key", *CATALOGUE}
    families = server.families()
    assert {s.labels["stage"] for s in families["secure_infer_request_seconds"].samples} <= {
        *calls.STAGES,
        TOTAL,
        REFUSED,
    }
    assert {s.labels["model"] for f in families.values() for s in f.samples if "model" in s.labels} == {
        "",
        "cheap",
        "slow",
    }


def test_spans_of_a_call(server: Running) -> None:
    _forget(server)
    parent, trace, own = "b7ad6b7169203331", "0af7651916cd43dd8448eb211c80319c", secrets.token_bytes(16)
    metadata = (("traceparent", f"00-{trace}-{parent}-01"), ("tracestate", "note=zygomatic"))
    with pytest.raises(UnknownModel):
        infer(server.address, metadata, model="nobody", request_id=own)
    with Client(server.address, model="slow") as client:
        client.predict(unit_rows(1, 600))
    until(lambda: _flushed(server) and any(span.name == "queue" for span in server.spans.get_finished_spans()))
    spans = server.spans.get_finished_spans()
    refused = next(
        span for span in spans if span.name.endswith("/Infer") and span.status.status_code is StatusCode.ERROR
    )
    assert (f"{refused.context.trace_id:032x}", f"{refused.parent.span_id:016x}") == (trace, parent)
    assert refused.attributes["secure_infer.request"] == hashlib.sha256(own).hexdigest()  # as in the audit log
    assert not refused.context.trace_state
    assert not refused.parent.trace_state  # a caller's free text
    answered = [span for span in spans if span.name == INFER[1:] and span.status.status_code is StatusCode.UNSET]
    (call,) = answered
    assert call.kind is SpanKind.SERVER
    stages = [span for span in spans if span.parent and span.parent.span_id == call.context.span_id]
    assert {"queue", "load", "evaluate"} <= {span.name for span in stages} <= set(calls.STAGES)
    for span in stages:
        assert call.start_time <= span.start_time <= span.end_time <= call.end_time
        assert not span.attributes
    assert all(set(span.attributes) <= set(tracing.ATTRIBUTES) for span in spans)
    assert not any(span.events or span.links for span in spans)


def _forget(server: Running) -> None:
    assert _flushed(server)
    server.spans.clear()


def _flushed(server: Running) -> bool:
    (traces,) = [each for each in server.app._watch._observers if isinstance(each, tracing.Traces)]
    return bool(traces._provider.force_flush())


@pytest.mark.parametrize("sent", ["", "00-zz", "0" * 4000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_parent_that_is_none_begins_a_new_trace(server: Running, sent: str) -> None:
    _forget(server)
    with pytest.raises(UnknownModel):
        infer(server.address, (("traceparent", sent),), model="nobody")
    until(lambda: _flushed(server) and bool(server.spans.get_finished_spans()))
    assert server.spans.get_finished_spans()[0].parent is None


def test_probes_and_health_while_up(server: Running) -> None:
    assert server.get("/live") == (200, "ok\n")
    assert server.get("/ready") == (200, "ok\n")
    assert server.get("/admin")[0] == 404
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", LIVENESS, READINESS, "secure_infer.v1.InferenceService"):
            found = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert found.status == health_pb2.HealthCheckResponse.SERVING


def test_ready_is_gone_while_nothing_can_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer sends calls elsewhere while this server's log has no disk, and comes back by itself."""
    (tmp_path / "models").mkdir()
    linear_head(8, 3).save(tmp_path / "models" / "cheap.head")
    gate = GuardedGate(GuardSettings(audit=AuditSettings(tmp_path / "log")))
    full, write = [False], os.pwrite

    def pwrite(file: int, data: bytes, at: int) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, at)

    with running(tmp_path / "models", gate) as server, grpc.insecure_channel(server.address) as channel:
        monkeypatch.setattr(journal.os, "pwrite", pwrite)
        told = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(told).status == health_pb2.HealthCheckResponse.SERVING
        with Client(server.address, model="cheap", timeout=3) as client:
            client.predict(unit_rows(1, 8))
            assert gate._audit is not None
            assert gate._audit.flush(10)
            full[0] = True
            client.predict(unit_rows(1, 8))  # its entry waits
            assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.get("/ready") == (503, "not ok\n")
            assert server.get("/live")[0] == 200
            with pytest.raises(AuditUnavailable):
                client.predict(unit_rows(1, 8))
            full[0] = False
            assert next(told).status == health_pb2.HealthCheckResponse.SERVING
            client.predict(unit_rows(1, 8))
        told.cancel()
    gate.close()


def test_when_the_certificate_in_force_ends_is_told(tmp_path: Path) -> None:
    """Not that of a file which was refused."""
    made = certs.make(tmp_path, ["localhost"], "ward-7", 30)
    in_force = InForce()

    def told() -> list[float]:
        return [sample.value for family in CertificateMetrics(in_force).collect() for sample in family.samples]

    assert told() == []
    server_credentials(made["server.pem"], made["server.key"], made["ca.pem"], in_force)
    ends = told()
    assert ends == [pytest.approx(time.time() + 30 * 86400, abs=600)]
    later = certs.make(tmp_path / "later", ["localhost"], "ward-7", 60)
    with pytest.raises(SettingsError):
        server_credentials(later["server.pem"], made["server.key"], made["ca.pem"], in_force)
    assert told() == ends


def test_ready_ends_before_calls_do(tmp_path: Path) -> None:
    """Calls under way have their time; readiness is gone at once, and liveness stays."""
    linear_head(8, 3).save(tmp_path / "cheap.head")
    with running(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watched = {
            name: health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)
            for name in ("", LIVENESS, READINESS)
        }
        for answers in watched.values():
            assert next(answers).status == health_pb2.HealthCheckResponse.SERVING
        stopping = _begin_to_stop(server)
        for name in ("", READINESS):
            assert next(watched[name]).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not server.app.ready
        assert server.get("/ready")[0] == 503
        assert server.get("/live")[0] == 200
        later = [answer.status for answer in _rest(watched[LIVENESS])]
        assert health_pb2.HealthCheckResponse.NOT_SERVING not in later
        stopping()


def _begin_to_stop(server: Running) -> Callable[[], None]:
    thread = threading.Thread(target=server.app.stop)
    thread.start()
    return thread.join


def _rest(answers: Any) -> Iterator[Any]:
    answers.cancel()
    try:
        yield from answers
    except grpc.RpcError:
        return


def test_without_traces_nothing_of_them_is_loaded(tmp_path: Path) -> None:
    linear_head(8, 3).save(tmp_path / "cheap.head")
    program = (
        "import sys; from secure_infer_server.commands import serve; "
        f"serve.run(['--models', {str(tmp_path)!r}, '--listen', '127.0.0.1:0', '--insecure', '--check-config']); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0


def test_models_are_told_with_their_digest(server: Running) -> None:
    with grpc.insecure_channel(server.address) as channel:
        found = models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest(), timeout=10)
    told = {(s.labels["model"], s.labels["digest"]) for s in server.families()["secure_infer_model_info"].samples}
    assert told == {(model.name, _hex(model.digest)[:12]) for model in found.models}
    assert np.isclose(server.value("model_since_timestamp_seconds", model="cheap"), time.time(), atol=600)


def _hex(digest: Any) -> str:
    return digest if isinstance(digest, str) else digest.hex()
