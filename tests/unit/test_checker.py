"""The process that makes costly checks: its bounds, its end, and its questions in turn."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from headgate_server.core.errors import InvalidRequest, Unavailable
from headgate_server.ingest import checker as checker_module
from headgate_server.ingest.checker import Checker, TooCostly
from headgate_server.ingest.checker_process import LENGTHS
from tests.support.waiting import until_true

OBJECT = b'{"type":"object"}'


@pytest.fixture
async def checker() -> AsyncIterator[Checker]:
    """Return a checker with little time."""
    made = Checker(check_seconds=0.1, compile_seconds=0.5)
    yield made
    await made.close()


def _pid(checker: Checker) -> int:
    assert checker._process is not None
    return checker._process.pid


def _slow() -> tuple[bytes, bytes]:
    """Return a schema and data that take a minute."""
    schema = {"items": {"enum": [{"a": number} for number in range(3_000)]}}
    return orjson.dumps(schema), orjson.dumps([{"a": 2_999}] * 20_000)


async def test_schemas_are_compiled_and_data_is_checked(checker: Checker) -> None:
    await checker.compile(OBJECT)
    assert await checker.check(OBJECT, b"{}") is None
    assert await checker.check(OBJECT, b"[]") == ("", 'the value is not of type "object".')
    with pytest.raises(InvalidRequest) as caught:
        await checker.compile(b'{"type":"objekt"}')
    assert (caught.value.reason, caught.value.field) == ("INVALID_SCHEMA", "schema.type")
    with pytest.raises(InvalidRequest):
        await checker.check(b'{"type":"objekt"}', b"{}")
    large = orjson.dumps([1.5] * 100_000)
    assert await checker.check(b'{"items":{"type":"number"}}', large) is None


async def test_a_check_that_takes_too_long_is_ended_and_the_next_one_is_answered(checker: Checker) -> None:
    await checker.compile(OBJECT)
    first = _pid(checker)
    with pytest.raises(TooCostly):
        await checker.check(*_slow())
    assert await checker.check(OBJECT, b"{}") is None
    assert _pid(checker) != first


async def test_a_schema_that_takes_too_much_memory_or_time_to_compile(checker: Checker) -> None:
    patterns = {"properties": {f"p{number}": {"pattern": f"^.{{0,1000}}x{number}$"} for number in range(1_700)}}
    with pytest.raises(TooCostly):
        await checker.compile(orjson.dumps(patterns))
    await checker.compile(OBJECT)


async def test_a_process_that_was_killed_is_replaced_without_an_error(checker: Checker) -> None:
    await checker.compile(OBJECT)
    os.kill(_pid(checker), signal.SIGKILL)
    assert await checker.check(OBJECT, b"[]") is not None


async def test_a_process_that_does_not_answer_is_ended(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    await checker.compile(OBJECT)
    pid = _pid(checker)
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("headgate_server.ingest.checker._ANSWER_SECONDS", 0.2)
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("headgate_server.ingest.checker.launcher", lambda: silent)
    with pytest.raises(TooCostly):
        await checker.check(OBJECT, b"{}")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    monkeypatch.undo()
    assert await checker.check(OBJECT, b"{}") is None


async def test_a_process_that_ends_again_and_again_does_not_try_for_ever(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected end costs one more try."""
    lengths: list[int] = []

    class Unreadable:
        def pack(self, *values: Any) -> bytes:
            lengths.append(values[0])
            return LENGTHS.pack(0, 0, -1.0)  # an impossible timer is an error in the process

    monkeypatch.setattr("headgate_server.ingest.checker.LENGTHS", Unreadable())
    with pytest.raises(TooCostly):
        await checker.compile(OBJECT)
    assert len(lengths) == 1
    monkeypatch.undo()
    await checker.compile(OBJECT)


async def test_a_caller_that_gives_up_does_not_mix_up_the_answers(checker: Checker) -> None:
    await checker.compile(OBJECT)
    for _ in range(20):
        given_up = asyncio.ensure_future(checker.check(OBJECT, b"[]"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        given_up.cancel()
        assert await checker.check(OBJECT, b"{}") is None


async def test_a_caller_that_gives_up_before_its_turn_is_not_asked_for(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers of a costly schema that all gave up do not delay the next one."""
    await checker.compile(OBJECT)
    exchange, asked = checker_module._exchange, list[bytes]()

    def counted(process: subprocess.Popen[bytes], request: bytes) -> Any:
        asked.append(request)
        return exchange(process, request)

    monkeypatch.setattr("headgate_server.ingest.checker._exchange", counted)
    await checker._turn.acquire()
    waiting = [asyncio.create_task(checker.check(OBJECT, b"[]")) for _ in range(5)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    checker._turn.release()
    assert await checker.check(OBJECT, b"{}") is None
    assert len(asked) == 1


async def test_many_questions_at_once_are_answered_each_its_own(checker: Checker) -> None:
    schemas = [b'{"maximum":%d}' % number for number in range(50)]
    found = await asyncio.gather(*(checker.check(schema, b"25") for schema in schemas))
    assert [violation is None for violation in found] == [number >= 25 for number in range(50)]


async def test_no_process_is_left_and_none_is_started_after_the_end(checker: Checker) -> None:
    await checker.compile(OBJECT)
    pid = _pid(checker)
    await checker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unavailable) as caught:
        await checker.compile(OBJECT)
    assert caught.value.reason == "SHUTTING_DOWN"
    await checker.close()


async def test_an_unexpected_error_replaces_the_process(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def failing(process: subprocess.Popen[bytes], _: bytes) -> Any:
        pids.append(process.pid)
        raise RuntimeError("a bug")

    monkeypatch.setattr("headgate_server.ingest.checker._exchange", failing)
    with capture_logs() as lines, pytest.raises(Unavailable):
        await checker.compile(OBJECT)
    assert len(set(pids)) == 2
    assert [line["event"] for line in lines] == ["checker_failed"] * 2
    assert {line["exit_code"] for line in lines} == {-signal.SIGKILL}
    monkeypatch.undo()
    await checker.compile(OBJECT)
    assert _pid(checker) not in pids


_SERVER = """
import asyncio, os, signal
from headgate_server.ingest.checker import Checker

async def main():
    checker = Checker()
    await checker.compile(b"{}")
    print(checker._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_process_ends_with_a_server_that_is_killed() -> None:
    server = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, check=False
    )
    assert server.returncode == -signal.SIGKILL
    pid = int(server.stdout)

    def gone() -> bool:
        # An orphan that has ended may stay as a zombie until its new parent looks.
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    await asyncio.to_thread(until_true, gone)


async def test_a_process_that_cannot_be_started(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate_server.ingest.checker.launcher", lambda: ["/nowhere"])
    with pytest.raises(Unavailable):
        await checker.compile(OBJECT)
    monkeypatch.undo()
    await checker.compile(OBJECT)
