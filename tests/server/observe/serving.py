"""A server with everything that looks on, for the tests of this folder."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from secure_infer_server.app import App
from secure_infer_server.gate import Gate
from secure_infer_server.observe.collectors import CallMetrics, StateMetrics
from secure_infer_server.observe.endpoint import MetricsServer
from secure_infer_server.observe.figures import Figures
from secure_infer_server.observe.server import KeyMetrics, ModelMetrics, WorkerMetrics
from secure_infer_server.observe.tracing import Traces
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings

INFER = "/secure_infer.v1.InferenceService/Infer"
Labels = frozenset[tuple[str, str]]


@dataclass
class Running:
    app: App
    address: str
    metrics: MetricsServer
    spans: InMemorySpanExporter

    def get(self, path: str) -> tuple[int, str]:
        return get(self.metrics.address, path)

    def families(self) -> dict[str, Metric]:
        return {family.name: family for family in text_string_to_metric_families(self.get("/metrics")[1])}

    def value(self, name: str, **labels: str) -> float:
        """Of one sample, by all of its labels; 0 where there is none yet."""
        samples = [sample for family in self.families().values() for sample in family.samples]
        found = [each.value for each in samples if each.name == f"secure_infer_{name}" and each.labels == labels]
        return found[0] if found else 0.0


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextmanager
def running(models: Path, gate: Gate | None = None, *, workers: int = 0, reflection: bool = False) -> Iterator[Running]:
    settings = Settings(
        models,
        "127.0.0.1",
        0,
        insecure=True,
        reflection=reflection,
        blinds_per_key=4,
        workers=WorkerSettings(count=workers),
    )
    figures, spans = Figures(), InMemorySpanExporter()
    traces = Traces(spans)
    app = App(settings, gate, (figures, traces))
    with MetricsServer("127.0.0.1:0", CallMetrics(figures), StateMetrics(lambda: app.ready)) as metrics:
        metrics.add(ModelMetrics(app.registry), WorkerMetrics(app.front.pool, app.front.lane))
        metrics.add(KeyMetrics(app.front.clients.vault))
        metrics.live, metrics.ready = app.alive, lambda: app.ready
        address = app.start()
        try:
            yield Running(app, address, metrics, spans)
        finally:
            app.stop()
            traces.close()
