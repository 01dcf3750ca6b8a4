"""The variables `OTEL_*`: whether they ask for traces, and whether that is possible."""

import os
from collections.abc import Mapping
from importlib.util import find_spec

import structlog

log = structlog.get_logger(__name__)

EXPORTERS = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DISABLED = "OTEL_SDK_DISABLED"


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the variables ask for traces: with an exporter, or with an endpoint for one."""
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return False
    exporters = environment.get(EXPORTERS, "").strip().lower()
    return exporters != "none" if exporters else any(environment.get(name, "").strip() for name in _ENDPOINTS)


def available() -> bool:
    """Whether traces are wanted and the SDK is installed. If only the SDK is missing, the log says so."""
    if not wanted():
        return False
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        log.warning("tracing_not_installed", why="OTEL_* asks for traces", install="pip install 'headgate[otel]'")
        return False
    return True


def environment_of_workers() -> Mapping[str, str]:
    """Return what the environment of workers needs, so that only their parent says that the SDK is missing."""
    return {_DISABLED: "true"} if wanted() and not available() else {}
