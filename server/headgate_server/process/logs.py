"""Structured logs on standard error: one JSON object a line, or colours where a person is watching."""

import logging
import sys
from typing import Any

import orjson
import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure(level: str) -> None:
    """Set the logs up for this process, once, at its start."""
    watched = sys.stderr.isatty()
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if watched:
        # Its own way with exceptions shows local variables, and so a caller's key.
        processors.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if watched
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    # Libraries that log by the standard library's means are heard only where something is wrong.
    # grpc prints a header that is not UTF-8 whole, and it may be somebody's key.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)


def _dumps(event: Any, default: Any) -> bytes:
    return orjson.dumps(event, default=default)
