"""How a process ends, for both clients: what was emitted is stored or reported, always."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from headgate_client import Client
from tests.client.conftest import Served
from tests.support.waiting import GUARD, listens, until_true

KINDS = ("Client", "AsyncClient")
ROOT = Path(__file__).parents[2]

kinds = pytest.mark.parametrize("kind", KINDS)


class Ended(NamedTuple):
    """What a program said until it ended."""

    code: int
    lines: list[list[str]]
    errors: str

    def said(self, word: str) -> list[tuple[str, int]]:
        """Return source and number of the lines that begin with a word, in their order."""
        return [(line[1], int(line[2])) for line in self.lines if line[0] == word and len(line) == 3]


class Program:
    """Runs `exiting.py` with a key of its own, and reads its workspace."""

    def __init__(self, served: Served, key: str, kind: str):
        self._served = served
        self._key = key
        self._kind = kind

    def start(self, way: str, **environment: str) -> "subprocess.Popen[str]":
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.client.exiting", self._kind, way],
            cwd=ROOT,
            env={**os.environ, "HEADGATE_URL": self._served.address, "HEADGATE_KEY": self._key, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, way: str, **environment: str) -> Ended:
        """Run it to its end."""
        return finish(self.start(way, **environment))

    def stored(self) -> list[tuple[str, int]]:
        """Return source and number of the stored events, in the ledger's order."""
        with Client(self._served.address, api_key=self._key) as client:
            events = client.list(page_size=1000).events()
            return [(event.source, int((event.data or {})["n"])) for event in events]


def finish(process: "subprocess.Popen[str]", said: str = "", seconds: float = 60.0) -> Ended:
    """Wait for the end of a program. `said` is what was read from it before. If it hangs it says where, and so do its
    children: they have the streams open, too.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    ends = [
        threading.Timer(seconds + after, os.killpg, (process.pid, number))
        for after, number in ((0, signal.SIGUSR1), (20, signal.SIGABRT), (30, signal.SIGKILL))
    ]
    for end in ends:
        end.start()
    try:
        with process, process.stdout, process.stderr:
            out, errors = process.stdout.read(), process.stderr.read()
            process.wait()
    finally:
        for end in ends:
            end.cancel()
    return Ended(process.returncode, [line.split() for line in (said + out).splitlines()], errors)


def read_until(process: "subprocess.Popen[str]", *, line: str = "", lines: int = 0) -> str:
    """Read what a program says until a line, and so many more, and return it."""
    assert process.stdout is not None
    read = [next(process.stdout)]
    while line and read[-1] != line:
        read.append(next(process.stdout))
    return "".join(read) + "".join(next(process.stdout) for _ in range(lines))


@pytest.fixture
def program(served: Served, key: str, kind: str) -> Program:
    """Return the program."""
    return Program(served, key, kind)


@kinds
def test_a_program_that_hangs_says_where(program):
    process = program.start("hang")
    said = read_until(process, line="ready\n") + read_until(process, line="ready\n")
    ended = finish(process, said, seconds=0)
    assert ended.code == -signal.SIGABRT
    assert ended.errors.count("== thread MainThread") == 2, "the program and its child"
    assert ended.errors.count(", in wait_for_nobody") >= 2


@kinds
@pytest.mark.parametrize(("way", "code"), [("return", 0), ("exception", 1), ("sys.exit", 3), ("flush", 4)])
def test_at_the_end_of_a_program_everything_is_stored(program, way, code):
    ended = program.run(way)
    assert ended.code == code, ended.errors
    assert len(ended.said("emitted")) == 250
    assert program.stored() == ended.said("emitted")
    assert ended.said("reported") == []


@kinds
def test_a_child_of_multiprocessing_sends_what_waits(program):
    ended = program.run("multiprocessing")
    assert ended.code == 0, ended.errors
    assert len(ended.said("emitted")) == 250
    assert program.stored() == ended.said("emitted")


@kinds
def test_sigterm_sends_what_waits(program):
    process = program.start("SIGTERM")
    said = read_until(process, line="ready\n")
    process.send_signal(signal.SIGTERM)
    ended = finish(process, said)
    assert ended.code == 143, ended.errors
    assert program.stored() == ended.said("emitted")
    assert len(ended.said("emitted")) == 250


@kinds
def test_sigterm_in_the_middle_of_an_emit_loses_nothing(program):
    process = program.start("busy")
    said = read_until(process, line="ready\n", lines=50)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, said)
    assert ended.code == 143, ended.errors
    taken = max(int(line[1]) for line in ended.lines if line[0] == "taken")
    numbers = [number for _, number in program.stored()]
    assert numbers == list(range(len(numbers)))
    assert taken <= len(numbers) <= taken + 1, "one may be taken whose emit did not return"


@kinds
def test_os_exit_ends_without_sending_and_stores_nothing_twice(program):
    ended = program.run("os._exit")
    assert ended.code == 4
    stored = program.stored()
    assert stored == ended.said("emitted")[: len(stored)], "only what waited is lost, as documented"


@kinds
def test_without_a_server_everything_is_reported(program):
    ended = program.run("return", HEADGATE_URL="127.0.0.1:1", CLOSE_TIMEOUT="0.3")
    assert ended.code == 0, ended.errors
    assert ended.said("reported") == ended.said("emitted")
    assert "250 events were not sent" in ended.errors
    assert program.stored() == []


@kinds
def test_a_fork_while_sending_sends_everything_once(program):
    ended = program.run("fork")
    assert ended.code == 0, ended.errors
    emitted = ended.said("emitted")
    assert len(emitted) == 250 * 8
    stored = program.stored()
    assert Counter(stored) == Counter(emitted)
    for source in {source for source, _ in emitted}:
        assert [one for one in stored if one[0] == source] == [one for one in emitted if one[0] == source]


@kinds
@pytest.mark.parametrize("way", ["SIGKILL", "os._exit"])
def test_what_is_in_the_spool_survives_and_is_sent_by_the_next_process(program, tmp_path, way):
    spool = str(tmp_path / "events.db")
    if way == "SIGKILL":
        process = program.start("return", SPOOL=spool, HEADGATE_URL="127.0.0.1:1")
        said = read_until(process, lines=130)
        process.kill()
        ended = finish(process, said)
        assert ended.code == -signal.SIGKILL
    else:
        ended = program.run("os._exit", SPOOL=spool)
        assert ended.code == 4
    emitted = ended.said("emitted")
    assert len(emitted) >= 130
    after = program.run("return", SPOOL=spool)
    assert after.code == 0, after.errors
    stored = program.stored()
    assert Counter(stored).most_common(1)[0][1] <= 2, "each number once from each process"
    first, second = stored[: len(stored) - 250], stored[len(stored) - 250 :]
    assert first[: len(emitted)] == emitted
    assert len(first) <= len(emitted) + 1, "one may be on disk whose emit did not return"
    assert second == after.said("emitted")


@pytest.mark.parametrize("kind", ["AsyncClient"])
def test_what_tasks_have_waited_for_is_in_the_spool_and_survives_a_kill(program, tmp_path):
    spool = str(tmp_path / "events.db")
    process = program.start("waiting", SPOOL=spool, HEADGATE_URL="127.0.0.1:1")
    said = read_until(process, lines=600)
    process.kill()
    emitted = finish(process, said).said("emitted")
    assert len(emitted) >= 600
    after = program.run("return", SPOOL=spool)
    assert after.code == 0, after.errors
    stored = program.stored()
    assert Counter(stored).most_common(1)[0][1] == 1
    for task in range(5):
        source = f"parent-{task}"
        numbers = [number for name, number in stored if name == source]
        assert numbers == list(range(len(numbers)))
        assert 0 <= len(numbers) - sum(name == source for name, _ in emitted) <= 1, "one of each task was on its way"


@kinds
def test_gunicorn_preload_sends_what_parent_and_workers_emit(served, key, kind, tmp_path, program):
    socket = tmp_path / "gunicorn.sock"
    application = ["tests.client.preloaded:wsgi"]
    if kind == "AsyncClient":
        application = ["-k", "uvicorn_worker.UvicornWorker", "tests.client.preloaded:asgi"]
    with (tmp_path / "log").open("w") as log:
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{socket}", *application],
            cwd=ROOT,
            env={**os.environ, "HEADGATE_URL": served.address, "HEADGATE_KEY": key, "KIND": kind},
            stdout=log,
            stderr=log,
        )
    try:
        until_true(lambda: listens(socket))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as http:
            for number in range(120):
                assert http.get(f"/{number}", headers={"connection": "close"}).status_code == 200
        gunicorn.send_signal(signal.SIGTERM)
        assert gunicorn.wait(GUARD) == 0, (tmp_path / "log").read_text()
    finally:
        gunicorn.kill()
        gunicorn.wait()
    stored = program.stored()
    expected = [("worker", number) for number in range(120)]
    if kind == "Client":
        expected += [("parent", number) for number in range(250)]
    assert sorted(stored) == sorted(expected), (tmp_path / "log").read_text()
