"""Levels of a party's stores and of a dealer, for Prometheus: read when they are asked for.

Labels are a model's name, as clients know it, and rows: nothing of weights, inputs or answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from secure_infer_server.mpc.dealer import Dealer
from secure_infer_server.mpc.stores import Stores
from secure_infer_server.observe.families import PREFIX, counter, gauge


class StoreMetrics(Collector):
    """What a party holds and used. Rows are "any" for recipes registered on demand, so that series stay few."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def collect(self) -> Iterable[Metric]:
        labels = ["model", "rows"]
        bundles = GaugeMetricFamily(PREFIX + "bundles", "Bundles of correlations held.", labels=labels)
        wanted = GaugeMetricFamily(PREFIX + "bundles_wanted", "Bundles that are kept ahead.", labels=labels)
        held = GaugeMetricFamily(PREFIX + "bundle_bytes", "Memory of the bundles held.", labels=labels)
        for level in self._stores.levels():
            names = [level.model, str(level.rows or "any")]
            for family, value in ((bundles, level.bundles), (wanted, level.wanted), (held, level.bytes)):
                family.add_metric(names, value)
        yield from (bundles, wanted, held)
        tallies = self._stores.tallies()
        yield counter("bundles_received", "Bundles that the dealer sent.", tallies.received)
        yield counter("bundles_used", "Bundles handed out to requests.", tallies.used)
        yield counter("bundles_dropped", "Bundles dropped unused: void, passed over, or without room.", tallies.dropped)
        yield counter("store_dry", "Requests that found no bundle ready.", tallies.dry)
        yield counter("store_exhausted", "Requests that got none before their deadline.", tallies.exhausted)
        yield counter("store_epochs", "Epochs of the dealer.", tallies.epochs)
        yield gauge("dealer_connected", "1 while the dealer deals to both parties.", self._stores.connected)


class DealerMetrics(Collector):
    """What a dealer dealt."""

    def __init__(self, dealer: Dealer) -> None:
        self._dealer = dealer

    def collect(self) -> Iterable[Metric]:
        figures = self._dealer.figures()
        yield counter("dealt_bundles", "Bundles dealt.", figures.dealt)
        yield counter("dealt_bytes", "Bytes of their corrections.", figures.bytes)
        yield counter("dealer_epochs", "Times that both parties met here.", figures.epochs)
        yield counter("dealer_refused_recipes", "Recipes that could not be dealt.", figures.refused)
        yield gauge("dealer_recipes", "Recipes known in this epoch.", figures.recipes)
        yield gauge("dealer_mask_bytes", "Bytes of weight masks of this epoch.", figures.mask_bytes)
        parties = GaugeMetricFamily(PREFIX + "dealer_party_connected", "1 while the party is there.", labels=["party"])
        for party, present in enumerate(figures.parties):
            parties.add_metric([str(party)], present)
        yield parties
