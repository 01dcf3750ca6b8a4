"""Prints one trace, from curl to COMMIT: `.venv/bin/python docs/trace.py`. Needs curl, and `headgate[otel]`.

It runs the service in a temporary folder with OpenTelemetry's console exporter, sends one request with curl that begins
a trace, and prints the spans of that trace with their links.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, Any

Span = Mapping[str, Any]

_UP = (sys.executable, "-m", "headgate_server", "up", "--grpc-port", "0", "--http-port", "0", "--log-level", "warning")
_CURL = ("curl", "--silent", "--fail", "--output", os.devnull)
_SHOWN = ("events", "calls", "accepted", "rejected")


def main() -> None:
    """Run the service, send the request, and print its trace."""
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with tempfile.TemporaryDirectory() as folder:
        service = subprocess.Popen(_UP, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
        try:
            assert service.stdout is not None
            address, key = _greeting(service.stdout)
            print(f"curl with traceparent 00-{trace_id}-{caller}-01")
            _send(address, key, f"00-{trace_id}-{caller}-01")
            spans = _spans_of(service.stdout, trace_id)
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
    for line in _tree(spans, f"0x{caller}", 1):
        print(line)


def _greeting(output: IO[str]) -> tuple[str, str]:
    """Return the address of REST and the key that the service prints at its first start."""
    address = key = ""
    for line in output:
        if found := re.search(r"http://\S+:\d+", line):
            address = address or found[0]
        if found := re.search(r"\bhg_[0-9A-Za-z]{43}\b", line):
            key = found[0]
        if line == "\n" and key:
            return address, key
    raise SystemExit("the service did not start")


def _send(address: str, key: str, traceparent: str) -> None:
    body = {"events": [{"type": "order.completed", "source": "shop", "data": {"amount": 49.99}}, {"source": "shop"}]}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "traceparent": traceparent}
    given = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    subprocess.run(
        [*_CURL, *given, "--data", json.dumps(body), f"{address}/v1/events/batch"],
        check=True,
    )


def _spans_of(output: IO[str], trace_id: str) -> list[Span]:
    """Return the spans of a trace, when the call's own span has come: it ends last."""
    spans = []
    for span in _spans(output):
        if span["context"]["trace_id"] == f"0x{trace_id}":
            spans.append(span)
            if span["kind"] == "SpanKind.SERVER":
                return spans
    raise SystemExit("the service ended without a trace")


def _spans(output: IO[str]) -> Iterator[Span]:
    """Yield the spans that the console exporter prints: an object in several lines each."""
    lines: list[str] = []
    for line in output:
        if line == "{\n" or lines:
            lines.append(line)
        if line == "}\n":
            yield json.loads("".join(lines))
            lines = []


def _tree(spans: list[Span], parent: str, depth: int) -> Iterator[str]:
    """Yield a line for each span below a parent, and below it those of its own children."""
    for span in sorted((one for one in spans if one["parent_id"] == parent), key=lambda one: one["start_time"]):
        began, ended = (datetime.fromisoformat(span[name]) for name in ("start_time", "end_time"))
        shown = {name.removeprefix("headgate."): value for name, value in span["attributes"].items()}
        details = " ".join(
            f"{name}={shown[name]}" for name in ("events", "calls", "accepted", "rejected") if name in shown
        )
        links = "".join(f" -> {link['context']['span_id']}" for link in span["links"])
        milliseconds = (ended - began).total_seconds() * 1000
        identity = span["context"]["span_id"]
        yield f"{'  ' * depth}{span['name']} {identity} {milliseconds:.2f} ms {details}{links and ' links' + links}"
        yield from _tree(spans, identity, depth + 1)


if __name__ == "__main__":
    main()
