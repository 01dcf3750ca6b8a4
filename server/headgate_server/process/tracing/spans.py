"""The spans, on OpenTelemetry's SDK. It is imported only if traces are wanted."""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headgate_server.process.tracing.outgoing import OUTGOING
from headgate_server.process.tracing.variables import EXPORTERS

log = structlog.get_logger(__name__)

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_LONGEST_PARENT = 128
"""Characters. A traceparent of version 00 has 55; one of a later version may be a little longer."""
_LONGEST_STATE = 512
_FLUSH_SECONDS = 3.0
"""The time to export the last spans at the end of the process."""
_MOST_LINKS = 128
"""The standard bound of a span's links. A group of more callers names the first of them."""

_propagator = TraceContextTextMapPropagator()


class Timed(NamedTuple):
    """A part of a span, with its times in nanoseconds since the epoch."""

    name: str
    began: int
    ended: int


def from_environment() -> "Tracing":
    """Return tracing with the exporters that the variables name. One that is not installed or cannot be made leaves a
    line in the log.
    """
    # The SDK reads OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_SPAN_* and OTEL_BSP_* itself.
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "headgate"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters(os.environ):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _exporters(environment: Mapping[str, str]) -> Iterator[Any]:
    """Yield the exporters that the variables name, as the packages that are installed offer them."""
    offered = {one.name: one for one in entry_points(group="opentelemetry_traces_exporter")}
    for name in (environment.get(EXPORTERS, "").strip().lower() or "otlp").split(","):
        name = name.strip()
        if name == "otlp":
            protocol = next((environment[one] for one in _PROTOCOLS if environment.get(one)), "http/protobuf")
            name = "otlp_proto_grpc" if protocol.strip() == "grpc" else "otlp_proto_http"
        if name not in offered:
            log.warning("trace_exporter_unknown", exporter=name[:100], known=sorted(offered))
            continue
        try:
            yield offered[name].load()()
        except Exception as error:
            log.warning("trace_exporter_failed", exporter=name, error=type(error).__name__)


class Tracing:
    """Makes the spans of a process. The pipeline, the committer and the delivery have one, or None."""

    def __init__(self, provider: TracerProvider):
        self._provider = provider
        self._tracer = provider.get_tracer("headgate")

    @contextmanager
    def call(self, method: str, headers: Mapping[str, str | bytes]) -> Iterator[Span]:
        """Trace a call during a block. Its span continues the caller's trace, if `headers` have one."""
        service, _, name = method.removeprefix("/").rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        with self._tracer.start_as_current_span(
            f"{service}/{name}",
            context(headers),
            SpanKind.SERVER,
            attributes,
            record_exception=False,  # an exception's text may quote an event
            set_status_on_exception=False,
        ) as span:
            yield span

    def here(self) -> Span | None:
        """Return the span of the running code, None if it is not recorded."""
        span = trace.get_current_span()
        return span if span.is_recording() else None

    def commit(
        self,
        callers: Sequence[Span | None],
        began: int,
        attributes: Mapping[str, Any],
        parts: Sequence[Timed],
        failed: bool = False,
    ) -> None:
        """Trace a group commit that has ended. It belongs to the trace of its first caller, and has links to all of its
        callers; each of them gets a link to it. It makes no span if no caller is traced.

        In a trace of its own it would be sampled independently of its callers.
        """
        spans = [caller for caller in dict.fromkeys(callers) if caller is not None]
        if not spans:
            return
        links = [Link(caller.get_span_context()) for caller in spans[:_MOST_LINKS]]
        parent = trace.set_span_in_context(spans[0], Context())
        span = self._tracer.start_span("commit", parent, SpanKind.INTERNAL, attributes, links, began)
        inside = trace.set_span_in_context(span, Context())
        for part in parts:
            self._tracer.start_span(f"commit {part.name}", inside, start_time=part.began).end(part.ended)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(max(began, parts[-1].ended) if parts and not failed else None)
        for caller in spans:
            caller.add_link(span.get_span_context())

    @contextmanager
    def delivery(self, kind: str, attributes: Mapping[str, Any]) -> Iterator[Span]:
        """Trace a request to a destination during a block. It begins a trace, which the receiver can continue."""
        with self._tracer.start_as_current_span(
            f"deliver {kind}",
            Context(),
            SpanKind.CLIENT,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            token = OUTGOING.set(tuple(carrier.items()))
            try:
                yield span
            finally:
                OUTGOING.reset(token)

    def failed(self, span: Span) -> None:
        """Mark a span as failed."""
        span.set_status(StatusCode.ERROR)

    def trace_id(self, span: Span) -> str:
        """Return the id of a span's trace as logs have it."""
        return format(span.get_span_context().trace_id, "032x")

    async def close(self) -> None:
        """Export the last spans, within a bounded time."""
        # A thread of our own: the interpreter's end waits for those of a pool, and an exporter may hang.
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            try:
                self._provider.shutdown()
            finally:
                with suppress(RuntimeError):  # the event loop has ended meanwhile
                    loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="headgate-tracing", daemon=True).start()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await done.wait()
        except TimeoutError:
            log.warning("spans_lost", why="the exporter did not end in time")


def context(headers: Mapping[str, str | bytes]) -> Context:
    """Return the context of a caller's headers. Headers that are malformed or too long are ignored."""
    parent, state = headers.get(TRACEPARENT), headers.get(TRACESTATE)
    if not isinstance(parent, str) or len(parent) > _LONGEST_PARENT:
        return Context()
    carrier = {TRACEPARENT: parent}
    if isinstance(state, str) and len(state) <= _LONGEST_STATE:
        carrier[TRACESTATE] = state
    try:
        return _propagator.extract(carrier, Context())
    except Exception:
        return Context()
