"""HTTP for operators: /metrics for Prometheus, /live and /ready for container probes. Plain, and with no names of callers.

Who may read it is the operator's choice of address; nothing is served unless there is one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from secure_infer import address as addresses
from secure_infer.errors import SettingsError
from secure_infer_server.process import taken

log = logging.getLogger(__name__)

Probe = Callable[[], bool]
_PATHS = ("/live", "/ready", "/metrics")


class MetricsServer:
    """Serves at http://HOST:PORT until `close`; `address` is where. live, ready: asked by probes, which get 200 or 503."""

    def __init__(self, address: str, *collectors: Collector) -> None:
        """Raises SettingsError when the address cannot be had."""
        host, port = addresses.parse(address, "--metrics (port 0 picks a free one)")
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.add(*collectors)
        self.live: Probe = lambda: True
        self.ready: Probe = lambda: False
        try:
            self._server, self._thread = start_http_server(port, host.strip("[]"), self._registry)
        except OSError:
            raise SettingsError(f"--metrics: {taken(address)}") from None
        self._server.RequestHandlerClass = _terse(self._server.RequestHandlerClass)
        self._server.set_app(self._answer(self._server.get_app()))
        self.address = f"{host}:{self._server.server_port}"

    def add(self, *collectors: Collector) -> None:
        for collector in collectors:
            self._registry.register(_Whole(collector))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, metrics: Any) -> Any:
        def answer(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
            path = environment["PATH_INFO"]
            if path == "/metrics":
                if environment["REQUEST_METHOD"] != "GET":  # prometheus_client would say the caller's word again
                    start("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET")])
                    return [b"only GET\n"]
                found: Iterable[bytes] = metrics(environment, start)
                return found
            if path not in _PATHS:
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [f"one of {', '.join(_PATHS)}\n".encode()]
            fine = self.live() if path == "/live" else self.ready()
            start("200 OK" if fine else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"ok\n" if fine else b"not ok\n"]

        return answer

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _terse(handler: Any) -> Any:
    """It answers what is no request without saying the request again."""

    class Terse(handler):  # type: ignore[misc]
        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            super().send_error(code)

    return Terse


class _Whole(Collector):
    """A collector whose fault takes away its own metrics alone, and is logged without its text."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def describe(self) -> Iterable[Metric]:
        return ()  # else it would be asked for its figures now, before there are any

    def collect(self) -> Iterable[Metric]:
        try:
            return list(self._collector.collect())
        except Exception:
            log.exception("metrics of %s cannot be told", type(self._collector).__name__)
            return ()
