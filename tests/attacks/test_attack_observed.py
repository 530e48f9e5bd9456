"""Claim: nothing that operators look at holds an input, an embedding, a key or a logit, whatever a caller sends or the server
stumbles over: log lines of both formats, metrics, traces, the audit log. The store of answers holds ciphertexts alone.

Adversary: whoever reads what a server leaves behind; and callers who put content wherever a name or an id belongs, before a
server with bugs, which quotes its requests in exceptions.
Unprotected variant: the same content through loggers, labels, spans and entries of the usual kind; the same search finds
every form of it in each.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from adversary import random_head, upload
from google.protobuf.text_encoding import CEscape
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from test_attack_secret_search import TEXT, Words, input_forms, secret_forms, text_forms

from secure_infer.errors import SecureInferError
from secure_infer.v1 import inference_pb2
from secure_infer_client import Client
from secure_infer_client.local_process import LocalProcess
from secure_infer_server.logs import Format

INFER = "/secure_infer.v1.InferenceService/Infer"
FAULTY = b"faulty"
"""Requests with this ciphertext meet a bug."""

BUGS = f"""
import asyncio, sys, threading
from secure_infer import cli
from secure_infer_server.front import Front
sound = Front.infer
async def infer(self, *given):
    queries = [list(query) for query in given[5]]
    if {FAULTY!r} not in sum(queries, []):
        return await sound(self, *given)
    def fail():
        raise ValueError(f"cannot handle {{given}}, {{queries}}")
    asyncio.get_running_loop().create_task(asyncio.to_thread(fail))  # nobody waits for it
    threading.Thread(target=fail).start()
    fail()
Front.infer = infer
sys.exit(cli.main(sys.argv[1:]))
"""
CONFIGURATION = """
[budgets]
path = "budgets.sqlite"
total = 1000
answer_file = "answers.sqlite"
[audit]
directory = "log"
key = "audit.key"
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes traces in, as they are on the wire."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.server = grpc.server(ThreadPoolExecutor(1))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: object) -> object:  # noqa: N802
        self.taken.append(request.SerializeToString())
        return trace_service_pb2.ExportTraceServiceResponse()


@dataclass
class Left:
    """What a server left behind, by where; the forms to search it for; answers as it stored them."""

    sinks: dict[str, bytes]
    forms: dict[str, bytes]
    answers: list[bytes]


SHORTEST, PIECES = 16, 16


def pieces(form: bytes) -> Iterator[bytes]:
    """Short ones from all over it: what is cut off on its way into a log is found as well."""
    step = max(1, len(form) // PIECES)
    for start in range(0, len(form), step):
        piece = form[start : start + SHORTEST]
        if len(piece) == min(SHORTEST, len(form)) and len(set(piece)) > 2:
            yield piece


def spellings(piece: bytes) -> Iterator[bytes]:
    """How bytes come to stand in text."""
    yield piece
    yield piece.hex().encode()
    if len(piece) < SHORTEST:  # a few letters of base64 would be found by chance
        return
    for before in range(3):  # base64 looks otherwise after one byte or two
        text = base64.b64encode(bytes(before) + piece)
        yield text[4 if before else 0 : -4]
    escaped = [repr(piece)[2:-1], json.dumps(piece.decode("latin-1"))[1:-1], CEscape(piece, as_utf8=False)]
    for text in escaped:
        for _ in range(3):  # a log line quotes a message that quotes a message
            yield text.encode("latin-1")
            text = json.dumps(text)[1:-1]


def seen(record: bytes, forms: dict[str, bytes]) -> set[str]:
    """Names of the forms of which any piece is in the record, however it is spelled."""
    return {
        name
        for name, form in forms.items()
        if any(text in record for piece in pieces(form) for text in spellings(piece))
    }


def decimals(values: NDArray[np.float64]) -> dict[str, bytes]:
    """Numbers as they are printed: twelve digits of each."""
    return {f"number {k}": repr(float(v))[:14].encode() for k, v in enumerate(values.ravel()[:12]) if abs(v) > 1e-3}


def floats(what: str, values: NDArray[np.float64]) -> dict[str, bytes]:
    forms = {f"{what}, {kind}": values.astype(kind).tobytes() for kind in ("<f8", ">f8", "<f4", ">f4", "<f2")}
    return forms | {f"{what}, {name}": text for name, text in decimals(values).items()}


def start(directory: Path, form: Format, collector: Collector) -> LocalProcess:
    """`secure-infer serve` with `BUGS`, and all that looks on."""
    options = ["--models", "models", "--listen", "127.0.0.1:0", "--insecure", "--workers", "0", "--blinds-per-key", "0"]
    looking = ["--config", "serve.toml", "--keys", "keys", "--metrics", "127.0.0.1:0", "--traces", "--log-format", form]
    return Server([sys.executable, "-c", BUGS, "serve", *options, *looking], directory, collector.address)


class Server(LocalProcess):
    def __init__(self, command: list[str], directory: Path, collector: str) -> None:
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115
        standard = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        self.process = subprocess.Popen(
            command, cwd=directory, stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, **standard}
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        assert line, self.log()
        self.ready = json.loads(line)
        self.address = str(self.ready["address"])


def use(server: LocalProcess) -> dict[str, bytes]:
    """A client's day, and that of one who puts content wherever there is room. Returns all forms of what it has."""
    row = np.random.default_rng(13).uniform(-1, 1, (1, 16))
    with Client(server.address, model="target", embedder=Words()) as client:
        client.classify([TEXT])
        logits = client.predict(row)
        plan = client.plan
        key = client._session._secrets.by_ring.get(plan.parameters)
        public = key.upload(plan).data
        embedded, secret = client.embed([TEXT]), secret_forms(plan, key)
    forms = text_forms(TEXT) | {f"secret key, {name}": form for name, form in secret.items()}
    forms |= {f"row: {name}": form for name, form in input_forms(plan, row[0]).items()} | floats("row", row)
    forms |= floats("embedding", embedded) | floats("logits", logits) | {"public key": public}
    ids = [TEXT.encode()[:64], row.tobytes()[:64], logits.tobytes()[:64], public[:64], FAULTY]
    names = [TEXT, repr(row.tolist()), row.tobytes().hex(), base64.b64encode(public).decode()[:4000]]
    metadata = [
        ("x-note", TEXT),
        ("traceparent", TEXT),
        ("tracestate", f"note={TEXT.split()[0].lower()}"),
        ("baggage", TEXT),
    ]
    with grpc.insecure_channel(server.address) as channel:
        for number, identity in enumerate(ids):
            faults = [FAULTY] if identity == FAULTY else []
            request = inference_pb2.InferRequest(
                model=names[number % len(names)],
                request_id=identity,
                model_digest=row.tobytes(),
                plan_digest=TEXT.encode(),
                key_digest=logits.tobytes(),
                queries=[inference_pb2.Query(ciphertexts=[TEXT.encode(), row.tobytes(), public, *faults])],
            )
            for path in (INFER, f"/secure_infer.v1.{TEXT.replace(' ', '')}/Infer"):
                with suppress(grpc.RpcError):
                    channel.unary_unary(path)(request.SerializeToString(), timeout=10, metadata=metadata)
        with suppress(grpc.RpcError):
            channel.unary_unary(INFER)(TEXT.encode(), timeout=10)
    for data in (next(iter(forms.values())), secret["SEAL stream"], row.tobytes(), public):
        with suppress(SecureInferError):
            upload(server.address, "target", plan, data)
    return forms


@pytest.fixture(scope="module", params=Format)
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    directory, collector = tmp_path_factory.mktemp("server"), Collector()
    (directory / "models").mkdir()
    random_head(16, 8, seed=11, embedder="adversary/words").save(directory / "models" / "target.head")
    (directory / "serve.toml").write_text(CONFIGURATION)
    with start(directory, request.param, collector) as server:
        forms = use(server)
        end = time.monotonic() + 20
        while server.log().count("ValueError") < 3 and time.monotonic() < end:
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://{server.ready['metrics']}/metrics") as page:
            metrics = page.read()
        server.stop()
        log = server.log().encode()
    collector.server.stop(0)
    with sqlite3.connect(directory / "answers.sqlite") as stored:
        answers = [bytes(answer) for (answer,) in stored.execute("SELECT answer FROM answers")]
    audit = b"".join(path.read_bytes() for path in (directory / "log").iterdir() if path.is_file())
    budgets = b"".join(path.read_bytes() for path in directory.glob("budgets.sqlite*"))
    sinks = {"log": log, "metrics": metrics, "traces": b"".join(collector.taken), "audit": audit, "budgets": budgets}
    return Left(sinks, forms, answers)


def test_nothing_of_content_is_left_where_operators_look(left: Left) -> None:
    """By chance a piece of 16 bytes, or twelve digits, is found with probability below 1e-6 in all."""
    assert {name: seen(record, left.forms) for name, record in left.sinks.items()} == {
        name: set() for name in left.sinks
    }


def test_the_sinks_tell_of_those_very_calls(left: Left) -> None:
    """So the search looks at the right bytes: faults with their frames, refusals by reason, spans, entries."""
    log, metrics = left.sinks["log"].decode(), left.sinks["metrics"].decode()
    assert log.count("ValueError") >= 3  # of the request, of a task that nobody waits for, and of a thread
    assert "in fail" in log or " fail" in log
    assert 'outcome="UNKNOWN_MODEL"' in metrics
    assert 'outcome="INTERNAL_FAULT"' in metrics
    assert 'outcome="MALFORMED_REQUEST"' in metrics
    for reason in (b"UNKNOWN_MODEL", b"INTERNAL_FAULT", b"SECRET_KEY_RECEIVED"):
        assert reason in left.sinks["audit"]
        assert reason in left.sinks["traces"]
    # A fault's request is told by the same digest everywhere.
    request = hashlib.sha256(FAULTY).hexdigest()
    assert request in log
    assert request.encode() in left.sinks["audit"]
    assert request.encode() in left.sinks["traces"]


def test_stored_answers_are_ciphertexts(left: Left) -> None:
    """Digests, times and products: each as long as a product is, and none of it anything that a client would know."""
    assert len(left.answers) == 2
    assert seen(b"".join(left.answers), left.forms) == set()
    for stored in left.answers:
        response = inference_pb2.InferResponse.FromString(stored)
        products = [product for answer in response.answers.answers for product in answer.products]
        assert products
        assert len(stored) - sum(map(len, products)) < 200


def log_usually(content: bytes, text: str) -> bytes:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    record = logging.LogRecord("usual", logging.ERROR, "", 0, "cannot handle %r", (content,), None)
    try:
        raise ValueError(text)
    except ValueError:
        record.exc_info = sys.exc_info()
    handler.emit(record)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def count_usually(content: bytes, text: str) -> bytes:
    registry = CollectorRegistry()
    gauge = Gauge("usual", "By model.", ["model"], registry=registry)
    gauge.labels(repr(content)).set(1)
    gauge.labels(text).set(1)
    return generate_latest(registry)


def trace_usually(content: bytes, text: str) -> bytes:
    provider, spans = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with suppress(ValueError), provider.get_tracer("usual").start_as_current_span("call") as span:
        span.set_attribute("content", content.hex())
        raise ValueError(text)
    return bytes(encode_spans(spans.get_finished_spans()).SerializeToString())


def record_usually(content: bytes, text: str) -> bytes:
    return json.dumps({"content": base64.b64encode(content).decode(), "text": text}).encode()


Usual = Callable[[bytes, str], bytes]


@pytest.mark.parametrize("usual", [log_usually, count_usually, trace_usually, record_usually])
def test_the_search_finds_every_form_where_it_is_written_as_usual(left: Left, usual: Usual) -> None:
    """Bytes as they are quoted there, or the same as text in a message."""
    for name, form in left.forms.items():
        record = usual(form[:4096], form.decode("latin-1")[:4096])
        assert seen(record, {name: form}) == {name}
