"""Metric families under the project's prefix, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from secure_infer_server.observe.figures import BOUNDS, Histogram

PREFIX = "secure_infer_"


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


Labelled = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the value."""


def counters(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for found, value in values:
        family.add_metric(found, value)
    return family


def gauges(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for found, value in values:
        family.add_metric(found, value)
    return family


def histograms(
    name: str, text: str, labels: Sequence[str], found: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, histogram in found:
        buckets, count = [], 0
        for bound, more in zip((*map(str, BOUNDS), "+Inf"), histogram.counts, strict=True):
            count += more
            buckets.append((bound, count))
        family.add_metric(values, buckets, histogram.sum)
    return family
