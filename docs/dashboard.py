"""Draws metrics of a service with two workers under load: `python -m docs.dashboard FILE.svg [SECONDS]`.

It starts `headgate up` in a temporary folder, sends events over gRPC, scrapes the metrics every second, and draws what
the dashboard in deploy/grafana shows.
"""

import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import grpc
import matplotlib as mpl
from matplotlib.figure import Figure
from prometheus_client.parser import text_string_to_metric_families

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from tests.support.up import Up

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels]
Scrape = Mapping[Sample, float]
Lines = Mapping[str, Sequence[float]]

_CALLERS = 12
_SECONDS = 30


def main() -> None:
    """Run the service and draw."""
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else _SECONDS
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--workers", "2", "--metrics-port", "0", "--log-level", "info")
        with Up(*arguments, folder=Path(folder)) as up:
            stopped = threading.Event()
            callers = [threading.Thread(target=_send, args=(up, number, stopped)) for number in range(_CALLERS)]
            for caller in callers:
                caller.start()
            scrapes = list(_scrapes(up.metrics_port, seconds))
            stopped.set()
            for caller in callers:
                caller.join()
    _draw(scrapes, Path(sys.argv[1]))


def _send(up: Up, number: int, stopped: threading.Event) -> None:
    """Send batches over Envoy until stopped. One event of each is a duplicate, and one of some is refused."""
    with grpc.insecure_channel(up.rest) as channel:
        stub, count = IngestServiceStub(channel), 0
        while not stopped.is_set():
            count += 1
            keys = [f"{number}-{count}-{index}" for index in range(5 * (1 + number))] + [f"{number}"]
            events = [
                Event(type="page.viewed", source="web", idempotency_key=key, data_json=b'{"n":1}') for key in keys
            ]
            if count % 3 == 0:
                events.append(Event(source="web"))
            stub.BatchIngest(BatchIngestRequest(events=events), metadata=[("x-api-key", up.key)])


def _scrapes(port: int, seconds: int) -> Iterator[tuple[float, Scrape]]:
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            families = text_string_to_metric_families(page.read().decode())
        yield (
            now,
            {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples},
        )
        time.sleep(1)


def _rates(scrapes: Sequence[tuple[float, Scrape]], name: str, label: str = "") -> Lines:
    """Return the increase a second between scrapes, by the values of a label."""
    lines: dict[str, list[float]] = defaultdict(lambda: [0.0] * (len(scrapes) - 1))
    for index, ((before, old), (now, new)) in enumerate(pairwise(scrapes)):
        for sample, value in new.items():
            if sample[0] == name:
                lines[dict(sample[1]).get(label, "")][index] += (value - old.get(sample, 0)) / (now - before)
    return dict(sorted(lines.items()))


def _values(scrapes: Sequence[tuple[float, Scrape]], name: str, label: str = "") -> Lines:
    """Return the values, by the values of a label."""
    lines: dict[str, list[float]] = defaultdict(lambda: [0.0] * (len(scrapes) - 1))
    for index, (_, new) in enumerate(scrapes[1:]):
        for sample, value in new.items():
            if sample[0] == name:
                lines[dict(sample[1]).get(label, "")][index] += value
    return dict(sorted(lines.items()))


def _quotient(above: Lines, below: Lines, factor: float = 1.0) -> Lines:
    return {
        name: [factor * a / b if b else 0.0 for a, b in zip(values, below[name], strict=True)]
        for name, values in above.items()
    }


_ENVOYS = "envoy_http_downstream_rq_xx_total"
"""prometheus-client's parser adds `_total`, which Envoy leaves out."""
_Panel = Callable[[Sequence[tuple[float, Scrape]]], Lines]
PANELS: Mapping[str, _Panel] = {
    "Calls a second, by worker": lambda s: _rates(s, "headgate_worker_calls_total", "worker"),
    "Calls a second, by code": lambda s: _rates(s, "headgate_calls_total", "code"),
    "Events a second, by status": lambda s: _rates(s, "headgate_events_total", "status"),
    "Refused events a second, by reason": lambda s: {
        name: values for name, values in _rates(s, "headgate_events_total", "reason").items() if name
    },
    "Milliseconds of a group commit, by phase": lambda s: _quotient(
        _rates(s, "headgate_group_seconds_sum", "phase"), _rates(s, "headgate_group_seconds_count", "phase"), 1_000
    ),
    "Events of a group commit": lambda s: _quotient(
        _rates(s, "headgate_group_events_sum"), _rates(s, "headgate_group_events_count")
    ),
    "Events that wait, or are being stored": lambda s: _values(s, "headgate_waiting_events"),
    "Connections in use": lambda s: _values(s, "headgate_pool_connections_in_use", "pool"),
    "CPU of the workers, in cores": lambda s: _rates(s, "process_cpu_seconds_total"),
    "Memory of the workers, in MiB": lambda s: {
        "": [value / 2**20 for value in _values(s, "process_resident_memory_bytes")[""]]
    },
    "Envoy's answers a second, by class": lambda s: _rates(s, _ENVOYS, "envoy_response_code_class"),
    "Envoy's connections": lambda s: _values(s, "envoy_http_downstream_cx_active", "envoy_http_conn_manager_prefix"),
}


def _draw(scrapes: Sequence[tuple[float, Scrape]], path: Path) -> None:
    mpl.rcParams.update({"svg.hashsalt": "headgate", "font.size": 8, "svg.fonttype": "none"})
    figure = Figure(figsize=(11, 13), layout="constrained")
    times = [now for now, _ in scrapes[1:]]
    for axes, (title, panel) in zip(figure.subplots(6, 2).flat, PANELS.items(), strict=True):
        for name, values in panel(scrapes).items():
            axes.plot(times, values, label=name, linewidth=1.2)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        if any(panel(scrapes)):
            axes.legend(frameon=False, fontsize=7, ncols=2)
    figure.supxlabel("seconds")
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
