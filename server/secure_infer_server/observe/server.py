"""What Prometheus is told of a CKKS server: its workers, clients' keys and models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from secure_infer_server.keys.vault import KeyVault
from secure_infer_server.models.versions import Versions
from secure_infer_server.observe.families import counters, gauge, gauges
from secure_infer_server.workers.lane import Lane
from secure_infer_server.workers.pool import Pool

_MODEL = ("model",)


class WorkerMetrics(Collector):
    """Processes that evaluate."""

    def __init__(self, pool: Pool, lane: Lane) -> None:
        self._pool, self._lane = pool, lane

    def collect(self) -> Iterable[Metric]:
        found = {"queries": self._pool.figures(), "batches": self._lane.figures()}
        work, each = ("work",), found.items()
        yield gauge("queue_requests", "Requests that wait for a worker.", found["queries"].waiting)
        yield gauges("workers", "Workers that live.", work, [((name,), of.alive) for name, of in each])
        yield gauges("workers_busy", "Workers at work.", work, [((name,), of.busy) for name, of in each])
        restarts = [((name, "died"), of.died) for name, of in each]
        restarts += [((name, "replaced"), of.replaced) for name, of in each]
        yield counters("worker_restarts", "Workers that ended.", ("work", "reason"), restarts)
        resident = [((name,), of.resident) for name, of in each]
        yield gauges("workers_resident_bytes", "Memory of all, after each one's last job.", work, resident)


class KeyMetrics(Collector):
    """Clients' keys, of all clients together."""

    def __init__(self, vault: KeyVault[Any]) -> None:
        self._vault = vault

    def collect(self) -> Iterable[Metric]:
        count, size = self._vault.in_memory
        yield gauge("keys_ready", "Keys in memory, ready for evaluation.", count)
        yield gauge("keys_ready_bytes", "Their bytes.", size)
        failures = [((reason,), count) for reason, count in self._vault.backend.failures.items()]
        yield counters("key_store_failures", "Steps that the key store failed.", ("reason",), failures)
        try:
            usage = self._vault.backend.usage()
        except Exception:  # whatever is wrong with it, other figures are told
            yield gauge("key_store_up", "1 while the key store answers.", 0)
            return
        yield gauge("key_store_up", "1 while the key store answers.", 1)
        yield gauge("keys", "Keys held.", usage.keys)
        yield gauge("keys_bytes", "Their bytes.", usage.bytes)
        yield gauge("uploads", "Uploads under way, broken ones that may go on among them.", usage.uploads)


class ModelMetrics(Collector):
    """Models, and how they were replaced."""

    def __init__(self, models: Versions[Any]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        found = [(name, self._models.readiness(name)) for name in self._models.names()]
        digests = [((name, each.digest.hex()[:12]), 1) for name, each in found]
        yield gauges("model_info", "1 for each model that is served.", ("model", "digest"), digests)
        since = [((name,), each.since) for name, each in found]
        yield gauges("model_since_timestamp_seconds", "When its version began to be served.", _MODEL, since)
        versions = [((name,), 1 + each.earlier) for name, each in found]
        yield gauges("model_versions", "Versions that are answered.", _MODEL, versions)
        held_back = [((name,), bool(each.held_back)) for name, each in found]
        yield gauges("model_held_back", "1 while a file is there that was not taken over.", _MODEL, held_back)
        yield gauge("models_rejected", "Files that are not served in any version.", len(self._models.rejected))
