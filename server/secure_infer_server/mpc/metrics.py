"""Levels of a party's stores and of a dealer, for Prometheus: read when they are asked for, served over plain HTTP.

Labels are a model's name, as clients know it, and rows: nothing of weights, inputs or answers. Who may read them is the
operator's choice of address.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from secure_infer import address as addresses
from secure_infer.errors import SettingsError
from secure_infer_server.mpc.dealer import Dealer
from secure_infer_server.mpc.stores import Stores
from secure_infer_server.process import taken

_PREFIX = "secure_infer_"


class StoreMetrics(Collector):
    """What a party holds and used. Rows are "any" for recipes registered on demand, so that series stay few."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def collect(self) -> Iterable[Metric]:
        labels = ["model", "rows"]
        bundles = GaugeMetricFamily(_PREFIX + "bundles", "Bundles of correlations held.", labels=labels)
        wanted = GaugeMetricFamily(_PREFIX + "bundles_wanted", "Bundles that are kept ahead.", labels=labels)
        held = GaugeMetricFamily(_PREFIX + "bundle_bytes", "Memory of the bundles held.", labels=labels)
        for level in self._stores.levels():
            names = [level.model, str(level.rows or "any")]
            for family, value in ((bundles, level.bundles), (wanted, level.wanted), (held, level.bytes)):
                family.add_metric(names, value)
        yield from (bundles, wanted, held)
        tallies = self._stores.tallies()
        yield _counter("bundles_received", "Bundles that the dealer sent.", tallies.received)
        yield _counter("bundles_used", "Bundles handed out to requests.", tallies.used)
        yield _counter(
            "bundles_dropped", "Bundles dropped unused: void, passed over, or without room.", tallies.dropped
        )
        yield _counter("store_dry", "Requests that found no bundle ready.", tallies.dry)
        yield _counter("store_exhausted", "Requests that got none before their deadline.", tallies.exhausted)
        yield _counter("store_epochs", "Epochs of the dealer.", tallies.epochs)
        yield _gauge("dealer_connected", "1 while the dealer deals to both parties.", self._stores.connected)


class DealerMetrics(Collector):
    """What a dealer dealt."""

    def __init__(self, dealer: Dealer) -> None:
        self._dealer = dealer

    def collect(self) -> Iterable[Metric]:
        figures = self._dealer.figures()
        yield _counter("dealt_bundles", "Bundles dealt.", figures.dealt)
        yield _counter("dealt_bytes", "Bytes of their corrections.", figures.bytes)
        yield _counter("dealer_epochs", "Times that both parties met here.", figures.epochs)
        yield _counter("dealer_refused_recipes", "Recipes that could not be dealt.", figures.refused)
        yield _gauge("dealer_recipes", "Recipes known in this epoch.", figures.recipes)
        yield _gauge("dealer_mask_bytes", "Bytes of weight masks of this epoch.", figures.mask_bytes)
        parties = GaugeMetricFamily(_PREFIX + "dealer_party_connected", "1 while the party is there.", labels=["party"])
        for party, present in enumerate(figures.parties):
            parties.add_metric([str(party)], present)
        yield parties


class MetricsServer:
    """Serves collectors at http://HOST:PORT/metrics until `close`; `address` is where."""

    def __init__(self, address: str, *collectors: Collector) -> None:
        """Raises SettingsError when the address cannot be had."""
        host, port = addresses.parse(address, "--metrics (port 0 picks a free one)")
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        try:
            self._server, self._thread = start_http_server(port, host.strip("[]"), registry)
        except OSError:
            raise SettingsError(f"--metrics: {taken(address)}") from None
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)
