"""Traces, by OpenTelemetry: a span for each call, each group commit and each delivery.

The standard variables `OTEL_*` turn them on and say where they go. Without them no library of OpenTelemetry is
imported, there is no `Tracing`, and code that would make a span only asks whether there is one. The SDK is an extra of
the package, `headgate[otel]`.
"""

from typing import TYPE_CHECKING

from headgate_server.process.tracing.variables import available

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing


def from_environment() -> "Tracing | None":
    """Return the process's tracing as `OTEL_*` asks for it, None if there is none."""
    if not available():
        return None
    from headgate_server.process.tracing import spans

    return spans.from_environment()
