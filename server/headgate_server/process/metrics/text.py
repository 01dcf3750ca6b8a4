"""Snapshots in Prometheus's text format, which prometheus-client writes."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headgate_server.process.metrics.catalogue import CATALOGUE, Kind, Metric
from headgate_server.process.metrics.cells import Cells, Labels, Snapshot, Value

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def families(snapshot: Snapshot) -> Iterator[Family]:
    """Yield prometheus-client's form of a snapshot, in the order of the catalogue."""
    for metric in CATALOGUE:
        if metric.name in snapshot:
            yield _family(metric, snapshot[metric.name])


def text(snapshot: Snapshot) -> bytes:
    """Return a snapshot in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(snapshot))
    return generate_latest(registry)


def _family(metric: Metric, values: Mapping[Labels, Value]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        return _histogram(metric, values)
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.means, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)  # type: ignore[arg-type]
    return family


def _histogram(metric: Metric, values: Mapping[Labels, Value]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.means, labels=metric.labels)
    bounds = (*map(str, metric.buckets), "+Inf")
    for labels, value in sorted(values.items()):
        assert not isinstance(value, float | int)  # noqa: S101 - a histogram's value has its buckets
        *counts, total = value
        below, buckets = 0.0, []
        for bound, count in zip(bounds, counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(labels, buckets, sum_value=total)
    return family


class _Once(Collector):
    def __init__(self, snapshot: Snapshot):
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        return families(self._snapshot)


class CellsCollector(Collector):
    """A process's values as a collector of prometheus-client."""

    def __init__(self, cells: Cells):
        self._cells = cells

    def collect(self) -> Iterator[Family]:
        """Yield the families of this moment."""
        return families(self._cells.read())
