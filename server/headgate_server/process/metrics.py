"""All metrics, with type and meaning."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from headgate_server.process import logs

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one process, in a registry of their own, so that a test or a second server starts at zero."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_LogCollector())
        self._calls = self._counter("calls", "Calls by method and gRPC code.", "method", "code")
        self._seconds = self._histogram("call_seconds", "Time from request to answer.", "method")
        self._events = self._counter("events", "Events by status.", "status")
        self._job_failures = self._counter(
            "job_failures", "Failures of background jobs, each of which is started again.", "job"
        )
        self._job_running = self._gauge(
            "job_running", "1 while a background job runs, 0 while it waits to be started again.", "job"
        )
        self._lease_changes = self._counter(
            "lease_changes", "Leases that this process took and lost.", "lease", "change"
        )
        self._rejections = self._counter(
            "rejections", "Refused events by whether they were kept, or left out since too many came at once.", "fate"
        )
        self._streams = self._gauge("streams", "Streams that are open now: subscriptions, and streams of events.")
        self._attempts = self._counter(
            "delivery_attempts", "Requests to destinations by what came of them.", "kind", "result"
        )
        self._delivered = self._counter("delivery_events", "Events in requests to destinations.", "kind", "result")
        self._delivery_seconds = self._histogram("delivery_seconds", "Time of a request to a destination.", "kind")
        self._disabled = self._counter("destinations_disabled", "Destinations that the service disabled.")
        self._lags = (
            self._gauge(
                "destination_lag_events",
                "Events of the ledger beyond a destination's cursor. From the process that delivers.",
                "destination",
            ),
            self._gauge(
                "destination_lag_seconds",
                "Since the first event beyond a destination's cursor was stored.",
                "destination",
            ),
            self._gauge(
                "destination_set_aside",
                "Failed events of a destination that are tried again, or whose schedule is over.",
                "destination",
            ),
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"headgate_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"headgate_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"headgate_{name}", meaning, labels, buckets=_SECONDS, registry=self.registry)

    def streams(self, count: int) -> None:
        """Note how many subscriptions are open."""
        self._streams.set(count)

    def call(self, method: str, code: str, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def events(self, statuses: Mapping[str, int]) -> None:
        """Count events by status."""
        for status, count in statuses.items():
            self._events.labels(status).inc(count)

    def job_failed(self, job: str) -> None:
        """Count a failure of a background job."""
        self._job_failures.labels(job).inc()

    def job_running(self, job: str, *, running: bool) -> None:
        """Record whether a background job runs."""
        self._job_running.labels(job).set(running)

    def delivery_attempt(self, kind: str, result: str, events: int, seconds: float) -> None:
        """Count a request to a destination."""
        self._attempts.labels(kind, result).inc()
        self._delivered.labels(kind, result).inc(events)
        self._delivery_seconds.labels(kind).observe(seconds)

    def destinations(self, lags: Mapping[str, tuple[int, int, int]]) -> None:
        """Show how far each destination is behind, in events and in seconds, and how many events are set aside. None of
        the others is shown any more.
        """
        for gauge in self._lags:
            gauge.clear()
        for name, values in lags.items():
            for gauge, value in zip(self._lags, values, strict=True):
                gauge.labels(name).set(value)

    def lease_changed(self, lease: str, change: str) -> None:
        """Count a lease that was taken or lost."""
        self._lease_changes.labels(lease, change).inc()

    def destination_disabled(self) -> None:
        """Count a destination that the service disabled."""
        self._disabled.inc()

    def rejections_kept(self, count: int) -> None:
        """Count refused events that were written to the store."""
        self._rejections.labels("kept").inc(count)

    def rejections_omitted(self, count: int) -> None:
        """Count refused events that were left out."""
        self._rejections.labels("omitted").inc(count)


class _LogCollector(Collector):
    """The log's counter. It belongs to the process, not to a server, so it is read when a scraper asks."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metric."""
        help_text = "Lines of the log that were dropped: its reader is slow or gone, or its disk is full."
        yield CounterMetricFamily("headgate_log_lines_dropped", help_text, value=logs.dropped())
