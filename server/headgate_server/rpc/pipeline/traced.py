"""The interceptor that traces calls."""

import asyncio
from typing import TYPE_CHECKING

import grpc

from headgate_server.core.errors import HeadgateError
from headgate_server.process.aside import aside
from headgate_server.rpc import status
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.method import AnyMethod, Public

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span

    from headgate_server.process.tracing.spans import Tracing

_FAULTS_OF_OURS = frozenset(
    (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
"""The codes with which a server's span has failed, by OpenTelemetry's conventions. The others are the caller's faults.
"""


def traced(tracing: "Tracing | None") -> "Callable[[AnyMethod, Handler], Handler]":
    """Return an interceptor that makes a span of each call. Without `tracing`, handlers stay as they are.

    Probes and documents, which need no key, have no spans.
    """

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        if tracing is None or isinstance(method.access, Public):
            return handler

        async def followed(call: Call) -> bytes:
            # Of a traceparent that was sent twice, gRPC itself keeps the last one.
            with tracing.call(method.full_name, call.metadata) as span:
                if span.is_recording():
                    call.log["trace_id"] = tracing.trace_id(span)
                code = grpc.StatusCode.INTERNAL
                try:
                    answer = await handler(call)
                    code = call.code
                    return answer
                except HeadgateError as error:
                    code = status.code_of(error).grpc
                    raise
                except asyncio.CancelledError:
                    code = grpc.StatusCode.CANCELLED
                    raise
                finally:
                    with aside("span"):
                        _describe(span, call, code)
                        if code in _FAULTS_OF_OURS:
                            tracing.failed(span)

        return followed

    return interceptor


def _describe(span: "Span", call: Call, code: grpc.StatusCode) -> None:
    """Set what the log line says, too: the request id, the workspace, the key's id, the numbers of events."""
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    span.set_attribute("headgate.request_id", call.request_id)
    for name, value in call.log.items():
        if name != "trace_id" and isinstance(value, str | int | float):
            span.set_attribute(f"headgate.{name}", value)
