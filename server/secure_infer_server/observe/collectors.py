"""What Prometheus is told of calls by any process, read when it asks. docs/observability.md lists every metric.

Labels are names of the program's own and of models that are served: no identity, no digest of a key, nothing a caller wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from secure_infer import __version__
from secure_infer_server.callers.credentials import InForce
from secure_infer_server.callers.watched import held_back
from secure_infer_server.observe.families import counters, gauge, gauges, histograms
from secure_infer_server.observe.figures import Figures

_CALL = ("method", "model", "plan")
_MODEL = ("model",)


class CallMetrics(Collector):
    """Calls as they ended."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        series = self._figures.series()
        outcomes: Counter[tuple[str, ...]] = Counter()
        sizes: Counter[tuple[str, ...]] = Counter()
        records: Counter[tuple[str, ...]] = Counter()
        blinds: Counter[tuple[str, ...]] = Counter()
        for (method, model, _), each in series.items():
            for outcome, count in each.outcomes.items():
                outcomes[method, model, outcome] += count
            sizes[method, model, "in"] += each.bytes_in
            sizes[method, model, "out"] += each.bytes_out
            if each.records:
                records[model,] += each.records
            if each.blinds_ready or each.blinds_inline:
                blinds[model, "ready"] += each.blinds_ready
                blinds[model, "inline"] += each.blinds_inline
        yield counters("requests", "Calls by how they ended.", ("method", "model", "outcome"), outcomes.items())
        yield counters("request_bytes", "Bytes of messages.", ("method", "model", "direction"), sizes.items())
        yield histograms(
            "request_seconds",
            "Seconds of calls by stage; total and refused are whole calls.",
            (*_CALL, "stage"),
            (((*name, stage), found) for name, each in series.items() for stage, found in each.stages.items()),
        )
        yield counters("budget_records", "Records counted against budgets.", _MODEL, records.items())
        yield counters("blinds", "Blinds by where requests had them from.", ("model", "source"), blinds.items())


class AuditMetrics(Collector):
    """How far the audit log is behind. lag: entries that are not durable, and seconds since the oldest was taken."""

    def __init__(self, lag: Callable[[], tuple[int, float]]) -> None:
        self._lag = lag

    def collect(self) -> Iterable[Metric]:
        entries, seconds = self._lag()
        yield gauge("audit_waiting", "Entries that are not durable yet.", entries)
        yield gauge("audit_lag_seconds", "How long the oldest of them has waited.", seconds)


class CertificateMetrics(Collector):
    """Until when the certificate holds that connections get; nothing without one, whatever lies in its file by now."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force

    def collect(self) -> Iterable[Metric]:
        ends = self._in_force.ends
        if ends is not None:
            yield gauge("certificate_not_after_timestamp_seconds", "When the certificate of this process ends.", ends)


class FileMetrics(Collector):
    """Files that are read again when they change: policies, keys of issuers, secrets of codes, certificates."""

    def collect(self) -> Iterable[Metric]:
        found = [((name,), held) for name, held in sorted(held_back().items())]
        yield gauges("files_held_back", "1 while what is in them is not in force, as it cannot be.", ("files",), found)


class StateMetrics(Collector):
    """ready: whether calls are taken."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    def collect(self) -> Iterable[Metric]:
        yield gauges("info", "1; the version.", ("version",), [((__version__,), 1)])
        yield gauge("ready", "1 while calls are taken.", self._ready())
