"""When traces are wanted, which exporters are made, and what happens without the SDK."""

import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import capture_logs

from headgate_server.process import tracing
from headgate_server.process.tracing import spans, variables


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_the_standard_variables_ask_for_traces(environment: Mapping[str, str], wanted: bool) -> None:
    assert variables.wanted(environment) is wanted


def test_the_sdk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says so. The workers get no variables that would make each of them say it again."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(variables, "find_spec", lambda name: None)
    with capture_logs() as lines:
        assert tracing.from_environment() is None
    (line,) = lines
    assert (line["event"], line["install"]) == ("tracing_not_installed", "pip install 'headgate[otel]'")
    assert variables.environment_of_workers() == {"OTEL_SDK_DISABLED": "true"}
    monkeypatch.undo()
    assert variables.environment_of_workers() == {}


@pytest.mark.parametrize(
    ("environment", "made", "said"),
    [
        ({}, ["OTLPSpanExporter http"], []),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["OTLPSpanExporter grpc"], []),
        ({"OTEL_TRACES_EXPORTER": "console,otlp"}, ["ConsoleSpanExporter export", "OTLPSpanExporter http"], []),
        ({"OTEL_TRACES_EXPORTER": "nothing"}, [], ["trace_exporter_unknown"]),
    ],
)
def test_exporters(environment: Mapping[str, str], made: list[str], said: list[str]) -> None:
    with capture_logs() as lines:
        exporters = list(spans._exporters(environment))
    words = [
        next(word for word in ("http", "grpc", "export") if word in type(one).__module__.split(".")[-2:][0] + ".export")
        for one in exporters
    ]
    assert [type(one).__name__ for one in exporters] == [name.split()[0] for name in made]
    assert len(words) == len(made)
    assert [line["event"] for line in lines] == said
    for one in exporters:
        one.shutdown()


async def test_an_exporter_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_FLUSH_SECONDS", 0.05)
    released = threading.Event()

    class Hanging(TracerProvider):
        def shutdown(self) -> None:
            released.wait(20)

    with capture_logs() as lines:
        await spans.Tracing(Hanging(shutdown_on_exit=False)).close()
    assert [line["event"] for line in lines] == ["spans_lost"]
    released.set()


def test_without_the_variables_nothing_is_imported() -> None:
    script = (
        "import sys, headgate_server.cli.commands, headgate_server.app.server\n"
        "from headgate_server.process import tracing\n"
        "assert tracing.from_environment() is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "[]\n"
