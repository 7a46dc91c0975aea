"""Prometheus' families of numbers, from plain ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


class Histogram:
    """Counts per bucket, added to in batches. ``edges`` are the upper bounds, ascending, without infinity."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = np.asarray(edges, np.float64)
        self.counts = np.zeros(len(edges) + 1, np.int64)
        self.total = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Count a batch of values."""
        x = np.asarray(values, np.float64)
        self.counts += np.bincount(np.searchsorted(self.edges, x, side="left"), minlength=len(self.counts))
        self.total += float(x.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them: (upper bound, count)."""
        bounds = [repr(float(edge)) for edge in self.edges] + ["+Inf"]
        return [(bound, float(n)) for bound, n in zip(bounds, np.cumsum(self.counts), strict=True)]


Rows = Iterable[tuple[tuple[str, ...], float]]


def single(counts: Mapping[str, float]) -> Rows:
    """Rows with one label from a mapping."""
    return [((name,), n) for name, n in counts.items()]


def counter(name: str, text: str, rows: Rows, *labels: str) -> Metric:
    """A counter family."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, n in rows:
        family.add_metric(values, n)
    return family


def gauge(name: str, text: str, rows: Rows, *labels: str) -> Metric:
    """A gauge family."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, n in rows:
        family.add_metric(values, n)
    return family


def histogram(name: str, text: str, data: Histogram) -> Metric:
    """A histogram family without labels."""
    family = HistogramMetricFamily(name, text, labels=())
    family.add_metric([], buckets=data.buckets(), sum_value=data.total)
    return family


def histograms(name: str, text: str, label: str, data: Mapping[str, Histogram]) -> Metric:
    """A histogram family with one label, a histogram for each of its values."""
    family = HistogramMetricFamily(name, text, labels=(label,))
    for value, one in data.items():
        family.add_metric([value], buckets=one.buckets(), sum_value=one.total)
    return family
