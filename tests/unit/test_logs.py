"""The line of every call, which does not pass through structlog."""

import subprocess
import sys

import orjson
import pytest
from structlog.testing import capture_logs

from headgate_server.process import logs

_SAYS = """
from headgate_server.process import logs
import structlog

logs.configure("{level}", "json")
logs.line_of("info", "call")({{"method": "/a/B", "ms": 1.5, "odd": object}})
structlog.get_logger().info("call", method="/a/B", ms=1.5, odd=object)
"""


@pytest.mark.parametrize(("level", "count"), [("debug", 2), ("info", 2), ("warning", 0)])
def test_a_line_is_what_structlog_writes(level: str, count: int) -> None:
    command = [sys.executable, "-c", _SAYS.format(level=level)]
    said = subprocess.run(command, capture_output=True, timeout=60, check=True).stderr
    lines = [orjson.loads(line) for line in said.splitlines()]
    assert all(line.pop("timestamp") for line in lines)
    assert lines == count * [{"event": "call", "level": "info", "method": "/a/B", "ms": 1.5, "odd": repr(object)}]


def test_a_process_that_configures_no_log() -> None:
    with capture_logs() as lines:
        logs.line_of("info", "call")({"ms": 1.5})
    assert lines == [{"event": "call", "log_level": "info", "ms": 1.5}]
