"""A log that cannot be written neither fails nor delays calls, and does not keep the service from ending.

How long the end waits for the log is tested with the log alone (tests/unit/test_outlet.py). A process that waits for
ever is given up after a minute.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pysqlite3 import dbapi2 as sqlite

from headgate.v1.event_service_pb2 import ListEventsRequest
from tests.support.calls import Caller, event, refused, statuses
from tests.support.service import ServerProcess, make_key
from tests.support.up import HEADGATE, Up
from tests.support.waiting import until_true

CALLS = 60
"""Lines of some 180 bytes each: more than the smallest pipe holds, 4 KiB."""


@pytest.fixture(params=["the reader is gone", "the reader stops", "the disk is full"])
def broken(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return a descriptor that accepts nothing, or no more than a pipe holds."""
    if request.param == "the disk is full":
        full = os.open("/dev/full", os.O_WRONLY)
        yield full
        os.close(full)
        return
    reader, writer = os.pipe()
    assert fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1) < CALLS * 100
    if request.param == "the reader is gone":
        os.close(reader)
    yield writer
    os.close(writer)
    if request.param != "the reader is gone":
        os.close(reader)


async def test_calls_are_answered_and_the_process_ends(sqlite_url: str, broken: int) -> None:
    key = await make_key(sqlite_url)
    server = ServerProcess(sqlite_url, "--log-level", "info", stderr=broken)
    async with server, Caller(server.port, key) as caller:
        calls = (asyncio.wait_for(caller.batch(event(f"k{number}")), 30) for number in range(CALLS))
        assert {status for answer in await asyncio.gather(*calls) for status in statuses(answer)} == {"accepted"}
        # A library's log line and a refusal are written as well.
        await refused(caller.events.ListEvents(ListEventsRequest(page_token="no such"), metadata=caller.metadata))
        assert await caller.stored() == CALLS
        assert await server.end(signal.SIGTERM) == 0


def test_the_whole_service(tmp_path: Path, broken: int) -> None:
    """The parent process, its worker and Envoy share the log: none of them waits for it or fails because of it."""
    with Up(folder=tmp_path, stderr=broken) as up, httpx.Client(base_url=f"http://{up.rest}") as http:
        headers = {"authorization": f"Bearer {up.key}"}
        for _ in range(CALLS):
            assert http.get("/healthz", timeout=20).status_code == 200
        for number in range(20):
            body = {"type": "t", "idempotency_key": f"k{number}"}
            assert http.post("/v1/events", json=body, headers=headers, timeout=20).json()["status"] == "accepted"
        assert up.end(signal.SIGTERM) == 0


def test_a_start_that_fails_ends(tmp_path: Path, broken: int) -> None:
    """The message of a failed start cannot be written either; the exit code shows the failure."""
    command = [*HEADGATE, "serve", "--grpc-port", "0", "--store", f"sqlite:///{tmp_path}"]
    assert subprocess.run(command, stderr=broken, timeout=60, check=False).returncode == 2


CRASH = """
import sys
from headgate_server.process import logs
logs.configure("info")
{before}
raise RuntimeError("the end")
"""


def test_a_crash_is_logged_and_ends_the_process(tmp_path: Path) -> None:
    """The traceback of a crash takes the way of the log: it is written if possible, after the earlier lines."""
    code = CRASH.format(before="print('said before', file=sys.stderr)")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0] == "said before"
    assert ended.stderr.splitlines()[-1] == "RuntimeError: the end"


def test_a_crash_whose_log_nobody_reads_ends() -> None:
    reader, writer = os.pipe()
    try:
        code = CRASH.format(before="for _ in range(2000): print('x' * 100, file=sys.stderr)")
        ended = subprocess.run([sys.executable, "-c", code], stderr=writer, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert ended.returncode == 1


def test_warnings_and_other_libraries_logs_are_lines_of_json() -> None:
    code = """
import logging, warnings
from headgate_server.process import logs
logs.configure("info")
warnings.warn("old")
logging.getLogger("some.library").warning("number %s", "no", "too many")
logging.getLogger("some.library").error("number %d", 5)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in ended.stderr.splitlines() if line]
    assert ended.returncode == 0
    assert all(line.startswith("{") for line in said)
    assert '"logger":"py.warnings"' in said[0]
    assert '"event":"number %s"' in said[1]
    assert '"event":"number 5"' in said[2]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_service_that_was_started_without_its_streams(tmp_path: Path, closed: str) -> None:
    """Standard streams that are closed at the start become /dev/null, so that no file of the store gets their
    number.
    """
    command = f"exec {sys.executable} -m headgate_server serve --grpc-port 0 --store sqlite:///{tmp_path}/h.db {closed}"
    reader, writer = os.pipe()
    server = subprocess.Popen(["sh", "-c", f"{command} --ready-fd {writer}"], pass_fds=(writer,))
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            assert int(pipe.readline()) > 0
        targets = {number: os.readlink(f"/proc/{server.pid}/fd/{number}") for number in (0, 1, 2)}
        assert not [target for target in targets.values() if str(tmp_path) in target]
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()


def test_a_greeting_that_cannot_be_written_ends_nothing(tmp_path: Path, broken: int) -> None:
    """If standard output is as broken as the log, the service still runs, and ends when asked to.

    It makes no key that it cannot show. A pipe whose reader has stopped still takes the greeting.
    """
    path, log = tmp_path / "h.db", tmp_path / "log"
    command = [*HEADGATE, "up", "--grpc-port", "0", "--http-port", "0", "--store", f"sqlite:///{path}"]
    with log.open("w") as errors:
        up = subprocess.Popen(command, stdout=broken, stderr=errors)
    try:
        until_true(lambda: _keys(path) or "no API key was made" in log.read_text() or up.poll() is not None, seconds=60)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()
    assert _keys(path) == ("no API key was made" not in log.read_text())


def _keys(path: Path) -> int:
    """Return the number of keys in a store, which may not exist yet."""
    if not path.exists():
        return 0
    connection = sqlite.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM api_keys").fetchone()[0])
    except sqlite.Error:
        return 0
    finally:
        connection.close()
