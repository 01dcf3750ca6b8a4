"""The metrics of one process. `catalogue.py` lists them all; a service of several processes merges them
(`merging.py`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector

from headgate_server.process import logs
from headgate_server.process.metrics import catalogue
from headgate_server.process.metrics.catalogue import Metric
from headgate_server.process.metrics.cells import Cells, Histogram, Labels, Reading, Source, Value
from headgate_server.process.metrics.text import CellsCollector

OTHER = "_other"
"""Stands for all workspaces beyond the bound. No workspace has this name: theirs begin with a letter or a digit."""
MOST_DESTINATIONS = 100
"""The most destinations whose lag is shown: with more, a scrape would become large and a dashboard unreadable."""


class Metrics:
    """The metrics of one process, so that a test or a second server starts at zero. Used on one event loop; any thread
    may call `read`.
    """

    def __init__(self, workspaces: int = 0) -> None:
        """`workspaces` is the most workspaces that have a label; 0: none has."""
        self._cells = cells = Cells()
        self.registry = CollectorRegistry()
        """The same values for code that uses prometheus-client."""
        self.registry.register(CellsCollector(cells))
        self._most_workspaces = workspaces
        self._workspaces: set[str] = set()
        self._call_numbers = cells.numbers(catalogue.CALLS)
        self._call_seconds: dict[str, Histogram] = {}
        self._refusals = cells.numbers(catalogue.REFUSALS)
        self._events = cells.numbers(catalogue.EVENTS)
        self._group_events = cells.histogram(catalogue.GROUP_EVENTS)
        cells.add_source(_log)
        cells.add_source(_process)

    def add_source(self, source: Source) -> None:
        """Read this source at each scrape, too."""
        self._cells.add_source(source)

    def read(self) -> dict[str, dict[Labels, Value]]:
        """Return all values of this moment."""
        return self._cells.read()

    def build(self, version: str, python: str, store: str, core: str) -> None:
        """Show the versions, the kind of store, and which core is used."""
        self._cells.numbers(catalogue.BUILD_INFO)[version, python, store, core] = 1

    def streams(self, count: int) -> None:
        """Note how many subscriptions are open."""
        self._cells.numbers(catalogue.STREAMS)[()] = count

    def call(self, method: str, code: str, seconds: float) -> None:
        """Count one call."""
        numbers, key = self._call_numbers, (method, code)
        numbers[key] = numbers.get(key, 0.0) + 1
        histogram = self._call_seconds.get(method)
        if histogram is None:
            histogram = self._call_seconds[method] = self._cells.histogram(catalogue.CALL_SECONDS, method)
        histogram.observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a call that ended with an error."""
        self._refusals[reason,] = self._refusals.get((reason,), 0.0) + 1

    def events(self, statuses: Mapping[str, int], reasons: Mapping[tuple[str, str], int] | None = None) -> None:
        """Count events by status. `reasons` has the number of refused events by status and reason."""
        numbers = self._events
        for status, count in _without_reason(statuses, reasons).items() if reasons else statuses.items():
            numbers[status, ""] = numbers.get((status, ""), 0.0) + count
        for key, count in reasons.items() if reasons else ():
            numbers[key] = numbers.get(key, 0.0) + count

    def workspace_events(self, workspace: str, statuses: Mapping[str, int]) -> None:
        """Count events of a workspace, if metrics name workspaces."""
        if not self._most_workspaces:
            return
        if workspace not in self._workspaces:
            if len(self._workspaces) >= self._most_workspaces:
                workspace = OTHER
            else:
                self._workspaces.add(workspace)
        for status, count in statuses.items():
            self._add(catalogue.WORKSPACE_EVENTS, workspace, status, by=count)

    def group(self, events: int, seconds: Mapping[str, float]) -> None:
        """Record one group commit: its events, and the seconds of each phase."""
        self._group_events.observe(events)
        for phase, spent in seconds.items():
            self._cells.histogram(catalogue.GROUP_SECONDS, phase).observe(spent)

    def group_failed(self, error: str) -> None:
        """Count a group commit that failed with an error of this class."""
        self._add(catalogue.GROUP_FAILURES, error)

    def store_bytes(self, size: int) -> None:
        """Show the size of the store."""
        self._cells.numbers(catalogue.STORE_BYTES)[()] = size

    def store_free_bytes(self, size: int) -> None:
        """Show the free bytes of the store's disk."""
        self._cells.numbers(catalogue.STORE_FREE_BYTES)[()] = size

    def ledgers_verified(self, seconds: float, breaks: int) -> None:
        """Show when all ledgers were last verified, and the breaks that were found then."""
        self._cells.numbers(catalogue.LEDGERS_VERIFIED)[()] = seconds
        self._cells.numbers(catalogue.LEDGERS_BREAKS)[()] = breaks

    def destination_states(self, states: Mapping[str, int]) -> None:
        """Show how many destinations are in each state."""
        self._show(catalogue.DESTINATIONS, {(state,): float(count) for state, count in states.items()})

    def job_failed(self, job: str) -> None:
        """Count a failure of a background job."""
        self._add(catalogue.JOB_FAILURES, job)

    def job_running(self, job: str, *, running: bool) -> None:
        """Record whether a background job runs."""
        self._cells.numbers(catalogue.JOB_RUNNING)[job,] = running

    def delivery_attempt(self, kind: str, result: str, events: int, seconds: float) -> None:
        """Count a request to a destination."""
        self._add(catalogue.DELIVERY_ATTEMPTS, kind, result)
        self._add(catalogue.DELIVERY_EVENTS, kind, result, by=events)
        self._cells.histogram(catalogue.DELIVERY_SECONDS, kind).observe(seconds)

    def destinations(self, lags: Mapping[str, tuple[int, int, int]]) -> None:
        """Show how far each destination is behind, in events and in seconds, and how many events are set aside. Only
        those that are furthest behind are shown.
        """
        if len(lags) > MOST_DESTINATIONS:
            worst = sorted(lags, key=lambda name: (lags[name][1], lags[name][2], lags[name][0], name), reverse=True)
            lags = {name: lags[name] for name in worst[:MOST_DESTINATIONS]}
        for index, metric in enumerate((catalogue.LAG_EVENTS, catalogue.LAG_SECONDS, catalogue.SET_ASIDE)):
            self._show(metric, {(name,): float(values[index]) for name, values in lags.items()})

    def lease_changed(self, lease: str, change: str) -> None:
        """Count a lease that was taken or lost."""
        self._add(catalogue.LEASE_CHANGES, lease, change)

    def destination_disabled(self) -> None:
        """Count a destination that the service disabled."""
        self._add(catalogue.DESTINATIONS_DISABLED)

    def rejections_kept(self, count: int) -> None:
        """Count refused events that were written to the store."""
        self._add(catalogue.REJECTIONS, "kept", by=count)

    def rejections_omitted(self, count: int) -> None:
        """Count refused events that were left out."""
        self._add(catalogue.REJECTIONS, "omitted", by=count)

    def ledger_checked(self, breaks: int) -> None:
        """Count a check of a ledger, and the breaks that it found."""
        self._add(catalogue.LEDGER_CHECKS, "broken" if breaks else "sound")
        self._add(catalogue.LEDGER_BREAKS_FOUND, by=breaks)

    def _add(self, metric: Metric, *labels: str, by: float = 1) -> None:
        numbers = self._cells.numbers(metric)
        numbers[labels] = numbers.get(labels, 0.0) + by

    def _show(self, metric: Metric, values: dict[Labels, float]) -> None:
        """Show these values of a gauge, and no others."""
        numbers = self._cells.numbers(metric)
        for gone in numbers.keys() - values.keys():
            del numbers[gone]
        numbers.update(values)


def _without_reason(statuses: Mapping[str, int], reasons: Mapping[tuple[str, str], int]) -> Mapping[str, int]:
    """Return the counts by status of the events that have no reason."""
    left = Counter(statuses)
    for (status, _), count in reasons.items():
        left[status] -= count
    return +left


def _log() -> Iterator[Reading]:
    """The log belongs to the process, not to a server."""
    yield catalogue.LOG_LINES_DROPPED, (), logs.dropped()


_OF_PROCESS: Mapping[str, Metric] = {
    one.name: one
    for one in (
        catalogue.PROCESS_CPU,
        catalogue.PROCESS_MEMORY,
        catalogue.PROCESS_FDS,
        catalogue.PROCESS_START,
    )
}
_process_collector = ProcessCollector(registry=CollectorRegistry())


def _process() -> Iterator[Reading]:
    for family in _process_collector.collect():
        if (metric := _OF_PROCESS.get(family.name)) is not None:
            yield metric, (), family.samples[0].value
