"""The values of metrics in one process.

prometheus-client's own counters take a lock and look labels up for every count: to count and time a call takes 3.2 µs
with them and 0.3 µs with these (docs/metrics.md has the command). So the values are plain numbers here, and
prometheus-client writes them. Each value is changed by one thread only; any thread may read.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from headgate_server.process.metrics.catalogue import BY_NAME, Kind, Metric

Labels = tuple[str, ...]
"""The values of a metric's labels, in their order."""
Reading = tuple[Metric, Labels, float]
"""The present value of a counter or gauge."""
Source = Callable[[], Iterable[Reading]]
"""Reads values that another part of the process keeps. It is called for each scrape, from any thread."""

Value = float | Sequence[float]
"""A histogram has the number of observations in each bucket, the last one without a bound, and then their sum."""
Snapshot = Mapping[str, Mapping[Labels, Value]]
"""The values of all metrics at one moment, by metric's name."""


class Histogram:
    """The observations of one metric with one set of labels."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, metric: Metric):
        self._bounds = metric.buckets
        self.counts = [0] * (len(metric.buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count an observation in its bucket. A bucket contains its upper bound."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Cells:
    """All values of one process, and the sources of those that are kept elsewhere."""

    def __init__(self) -> None:
        self._values: dict[Metric, dict[Labels, float]] = {}
        self._histograms: dict[Metric, dict[Labels, Histogram]] = {}
        self._sources: list[Source] = []

    def numbers(self, metric: Metric) -> dict[Labels, float]:
        """Return the values of a counter or gauge, by labels. The caller changes them."""
        numbers = self._values.setdefault(metric, {})
        if not metric.labels and metric.kind is Kind.COUNTER:
            numbers.setdefault((), 0.0)  # so that its rate is known before it grows
        return numbers

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """Return the histogram with these labels."""
        histograms = self._histograms.setdefault(metric, {})
        found = histograms.get(labels)
        if found is None:
            found = histograms[labels] = Histogram(metric)
        return found

    def add_source(self, source: Source) -> None:
        """Read this source at each scrape, too."""
        self._sources.append(source)

    def read(self) -> dict[str, dict[Labels, Value]]:
        """Return all values. A source that fails is left out."""
        read: dict[str, dict[Labels, Value]] = {}
        for metric, numbers in tuple(self._values.items()):
            read[metric.name] = dict(numbers)
        for metric, histograms in tuple(self._histograms.items()):
            read[metric.name] = {labels: (*one.counts, one.sum) for labels, one in tuple(histograms.items())}
        for source in self._sources:
            try:
                found = list(source())
            except Exception:  # noqa: S112 - a part that is being closed has no values any more
                continue
            for metric, labels, value in found:
                read.setdefault(metric.name, {})[labels] = value
        return read


def packed(snapshot: Snapshot) -> dict[str, list[tuple[Labels, Value]]]:
    """Return a snapshot as JSON can hold it."""
    return {name: list(values.items()) for name, values in snapshot.items()}


def unpacked(data: Mapping[str, Sequence[tuple[Sequence[str], Value]]]) -> dict[str, dict[Labels, Value]]:
    """Return the snapshot that `packed` packed. Metrics that are not in this version's catalogue are left out."""
    return {
        name: {tuple(labels): value for labels, value in values} for name, values in data.items() if name in BY_NAME
    }
