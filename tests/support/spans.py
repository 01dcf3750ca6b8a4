"""Tracing whose spans a test reads."""

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from headgate_server.process.tracing.spans import Tracing


class Traced:
    """Tracing, and the spans that have ended."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._ended = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self.tracing = Tracing(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans with this name, with or without a service before it, in the order of their ends."""
        return [span for span in self._ended.get_finished_spans() if span.name.rpartition("/")[2] == name]


def identity(span: ReadableSpan) -> tuple[int, int]:
    """Return the ids of a span's trace and of the span."""
    return span.context.trace_id, span.context.span_id


def links(span: ReadableSpan) -> set[tuple[int, int]]:
    """Return the identities of the spans that a span has links to."""
    return {(link.context.trace_id, link.context.span_id) for link in span.links}
