"""Every metric of the service: its name, kind, meaning and labels. `docs/metrics.md` is written from this list.

Names follow the conventions of Prometheus: base units, `_seconds`, `_bytes`, and `_total` for counters (which the
exposition adds). No metric has a label with an unbounded number of values.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The type of a metric."""

    COUNTER = "counter"
    """A number that only grows. Its samples end in `_total`."""
    GAUGE = "gauge"
    """A value of this moment."""
    HISTOGRAM = "histogram"
    """How many observations are at most so large, their number and their sum."""


class Merge(StrEnum):
    """How a gauge's values in several processes become one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PHASE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)
_EVENTS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """One metric. Two are the same only if they are the same object, so it is a fast key."""

    name: str
    """Without the suffix `_total`."""
    kind: Kind
    means: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets, without infinity."""
    merge: Merge = Merge.SUM

    @property
    def shown(self) -> str:
        """The name as queries use it: that of a counter ends in `_total`."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


def _counter(name: str, means: str, *labels: str) -> Metric:
    return Metric(name=f"headgate_{name}", kind=Kind.COUNTER, means=means, labels=labels)


def _gauge(name: str, means: str, *labels: str, merge: Merge = Merge.SUM) -> Metric:
    return Metric(name=f"headgate_{name}", kind=Kind.GAUGE, means=means, labels=labels, merge=merge)


def _histogram(name: str, means: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(name=f"headgate_{name}", kind=Kind.HISTOGRAM, means=means, labels=labels, buckets=buckets)


BUILD_INFO = _gauge(
    "build_info",
    "1. The labels have the versions, the kind of store, and the core: `compiled` or `python`.",
    "version",
    "python",
    "store",
    "core",
    merge=Merge.MAX,
)
CORE_FAILURES = _counter(
    "core_failures", "Failures of the compiled core. Python did its work; each is a bug, and the log has its cause."
)
READY = _gauge(
    "ready", "1 if an event could be stored when that was last checked, 0 if not.",
    merge=Merge.MIN,
)  # fmt: skip
WORKERS = _gauge("workers", "Server processes that this service runs.")
WORKERS_ANSWERING = _gauge(
    "workers_answering", "Server processes that answered this scrape. The others hang, or are being replaced."
)
WORKER_CALLS = _counter("worker_calls", "Calls by worker, to see whether they are spread.", "worker")
RESTARTS = _counter("restarts", "Starts of processes after their first one, by kind: `worker` and `envoy`.", "kind")
ENVOY_ANSWERING = _gauge("envoy_answering", "1 if Envoy answered this scrape. Its own metrics begin with `envoy_`.")
TLS_EXPIRES = _gauge(
    "tls_certificate_expires_timestamp_seconds",
    "When the certificate in use expires, in seconds since the epoch; of its chain the first one that does. By where "
    "it is shown: `grpc`, `rest`, and `upstream`, to the servers behind a bridge. Absent without TLS.",
    "shown",
    merge=Merge.MIN,
)
LOG_LINES_DROPPED = _counter(
    "log_lines_dropped", "Lines of the log that were dropped: its reader is slow or gone, or its disk is full."
)

CALLS = _counter("calls", "Calls that ended, by method and gRPC code.", "method", "code")
CALL_SECONDS = _histogram("call_seconds", "Time from a request to the end of its answer.", "method")
REFUSALS = _counter("refusals", "Calls that ended with an error, by its reason (docs/reasons.md).", "reason")
CALLS_IN_PROGRESS = _gauge("calls_in_progress", "Calls in progress, without streams.")
CALLS_BOUND = _gauge("calls_in_progress_bound", "The most calls in progress (`--concurrent-calls`).")
REQUEST_BYTES = _gauge("request_bytes_in_progress", "Bytes of the requests in progress, decompressed.")
REQUEST_BYTES_BOUND = _gauge("request_bytes_in_progress_bound", "The most bytes of requests in progress.")
STREAMS = _gauge("streams", "Streams that are open now: subscriptions, and streams of events.")

EVENTS = _counter(
    "events", "Events by status, and by reason if they were refused (`reason` is empty otherwise).", "status", "reason"
)
WORKSPACE_EVENTS = _counter(
    "workspace_events",
    "Events by workspace and status. Only with `--metrics-workspaces`; those beyond its bound are `_other`.",
    "workspace",
    "status",
)
WAITING_EVENTS = _gauge("waiting_events", "Events that wait to be stored, or are being stored.")
WAITING_EVENTS_BOUND = _gauge(
    "waiting_events_bound", "The most events that may wait (`--waiting-events`); fewer while the store is slow."
)
WAITING_BYTES = _gauge("waiting_bytes", "Bytes of content that wait to be stored, or are being stored.")
WAITING_BYTES_BOUND = _gauge("waiting_bytes_bound", "The most bytes that may wait (`--waiting-bytes`).")
WAITING_SECONDS = _gauge("waiting_seconds", "How long the oldest waiting request has waited.", merge=Merge.MAX)
WAITING_SECONDS_BOUND = _gauge("waiting_seconds_bound", "How long a request may wait for its turn.", merge=Merge.MAX)

GROUP_EVENTS = _histogram("group_events", "Events of one group commit.", buckets=_EVENTS)
GROUP_SECONDS = _histogram(
    "group_seconds",
    "Time of one group commit by phase: `lock` (a connection and the ledgers' locks), `look_up` (keys), "
    "`settle` (decide and hash), `write`, `commit`.",
    "phase",
    buckets=_PHASE_SECONDS,
)
GROUP_FAILURES = _counter(
    "group_failures", "Group commits that failed, by the class of the error; the log has the cause.", "error"
)

POOL_IN_USE = _gauge("pool_connections_in_use", "Connections to the store that are in use.", "pool")
POOL_OPEN = _gauge("pool_connections_open", "Connections to the store that are open.", "pool")
POOL_BOUND = _gauge("pool_connections_bound", "The most connections to the store.", "pool")
STORE_BYTES = _gauge("store_bytes", "Size of the store: SQLite's files, or PostgreSQL's database.", merge=Merge.MAX)
STORE_FREE_BYTES = _gauge(
    "store_free_bytes",
    "Free bytes of the disk that has the store. Absent with PostgreSQL, whose disk is not seen from here.",
    merge=Merge.MIN,
)

KEY_LOOK_UPS = _counter(
    "key_look_ups", "Look-ups of API keys: `known` and `refused` from the cache, `missed` from the store.", "result"
)
KEYS_CACHED = _gauge("keys_cached", "API keys in the cache.")

REJECTIONS = _counter(
    "rejections", "Refused events by whether they were kept, or left out since too many came at once.", "fate"
)

JOB_FAILURES = _counter("job_failures", "Failures of background jobs, each of which is started again.", "job")
JOB_RUNNING = _gauge(
    "job_running", "Processes in which a background job runs; one that waits to be started again does not.", "job"
)
LEASE_CHANGES = _counter("lease_changes", "Leases that were taken and lost.", "lease", "change")

DELIVERY_ATTEMPTS = _counter("delivery_attempts", "Requests to destinations by what came of them.", "kind", "result")
DELIVERY_EVENTS = _counter("delivery_events", "Events in requests to destinations.", "kind", "result")
DELIVERY_SECONDS = _histogram("delivery_seconds", "Time of a request to a destination.", "kind")
DESTINATIONS_DISABLED = _counter("destinations_disabled", "Destinations that the service disabled.")
DESTINATIONS = _gauge("destinations", "Destinations by state.", "state", merge=Merge.MAX)
LAG_EVENTS = _gauge(
    "destination_lag_events",
    "Events of the ledger beyond a destination's cursor. From the process that delivers, for the 100 destinations that "
    "are furthest behind.",
    "destination",
)
LAG_SECONDS = _gauge(
    "destination_lag_seconds", "Since the first event beyond a destination's cursor was stored.", "destination"
)
SET_ASIDE = _gauge(
    "destination_set_aside",
    "Failed events of a destination that are tried again, or whose schedule is over; 10,000 at most are counted.",
    "destination",
)

LEDGER_CHECKS = _counter("ledger_checks", "Checks of a ledger's hashes over the API, by their result.", "result")
LEDGER_BREAKS_FOUND = _counter("ledger_breaks_found", "Breaks that checks over the API found.")

LEDGERS_VERIFIED = _gauge(
    "ledger_verified_timestamp_seconds",
    "When `headgate ledger verify` last checked all ledgers, in seconds since the epoch. Absent if it never did.",
    merge=Merge.MAX,
)
LEDGERS_BREAKS = _gauge("ledger_verified_breaks", "Breaks that it found then.", merge=Merge.MAX)

PROCESS_CPU = Metric(
    name="process_cpu_seconds", kind=Kind.COUNTER, means="CPU time of the server processes, user and system together."
)
PROCESS_MEMORY = Metric(
    name="process_resident_memory_bytes", kind=Kind.GAUGE, means="Resident memory of the server processes together."
)
PROCESS_FDS = Metric(name="process_open_fds", kind=Kind.GAUGE, means="Open file descriptors of the server processes.")
PROCESS_START = Metric(
    name="process_start_time_seconds",
    kind=Kind.GAUGE,
    means="When the oldest server process started, in seconds since the epoch.",
    merge=Merge.MIN,
)

CATALOGUE: tuple[Metric, ...] = tuple(one for one in globals().values() if isinstance(one, Metric))
"""All of them, in the order above."""
BY_NAME = {one.name: one for one in CATALOGUE}
