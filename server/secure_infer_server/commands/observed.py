"""Options of processes that an operator looks into: --metrics, --traces, --log-format."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from secure_infer_server import logs
from secure_infer_server.observe.calls import Observer
from secure_infer_server.observe.collectors import CallMetrics
from secure_infer_server.observe.endpoint import MetricsServer
from secure_infer_server.observe.figures import Figures


def add_options(parser: argparse.ArgumentParser, *, traces: bool = True) -> None:
    """traces: whether --traces is among them."""
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve /metrics for Prometheus, and /live and /ready for probes, there, over plain HTTP",
    )
    if traces:
        parser.add_argument(
            "--traces",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="send OpenTelemetry traces (extra otel); the standard OTEL_* variables say where to",
        )
    parser.add_argument(
        "--log-format",
        choices=[each.value for each in logs.Format],
        default=logs.Format.JSON.value,
        help="of log lines on stderr: json (default), or text for people",
    )


@dataclass(frozen=True)
class Observed:
    """What is switched on. metrics: where figures are served."""

    metrics: MetricsServer | None
    observers: Sequence[Observer]

    @property
    def address(self) -> str | None:
        return None if self.metrics is None else self.metrics.address


@contextmanager
def observed(options: argparse.Namespace) -> Iterator[Observed]:
    """Switch on what the options say, as long as it is entered; log from now on. Raises SettingsError, and ModuleNotFoundError
    for traces without their extra."""
    logs.start(logs.Format(options.log_format))
    observers: list[Observer] = []
    with ExitStack() as opened:
        metrics = None
        if options.metrics is not None:
            figures = Figures()
            observers.append(figures)
            metrics = opened.enter_context(MetricsServer(options.metrics, CallMetrics(figures)))
        if getattr(options, "traces", False):
            from secure_infer_server.observe.tracing import Traces

            traces = Traces()
            observers.append(traces)
            opened.callback(traces.close)
        yield Observed(metrics, observers)
