"""Asks a process of its own to compile and check what may take long, with a bound on its time and memory.

A thread writes the questions and reads the answers. uvloop's pipes to a child process were found closed under load
right after its start, although the process ran and had closed nothing.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

import orjson
import structlog

from headgate_server.core.errors import InvalidRequest, Unavailable
from headgate_server.core.reasons import Reason
from headgate_server.core.validator import Violation
from headgate_server.ingest.checker_process import ANSWER, LENGTHS, NO_DATA
from headgate_server.process.launcher import launcher

log = structlog.get_logger(__name__)

CHECK_SECONDS = 0.25
"""Processor time of one check. An ordinary check takes some microseconds; every other caller of a costly schema waits
for it.
"""
COMPILE_SECONDS = 2.0
"""Processor time to compile a schema that is put. 64 KiB of regular expressions take a tenth of a second."""
_ANSWER_SECONDS = 10.0
"""The longest time for an answer, on a machine that is busy with other work."""


class TooCostly(Exception):
    """The check took more processor time or memory than it may."""


class Checker:
    """One process that makes checks, one after the other. It is started when it is first needed, and again when it has
    ended.
    """

    def __init__(self, check_seconds: float = CHECK_SECONDS, compile_seconds: float = COMPILE_SECONDS):
        self._check_seconds = check_seconds
        self._compile_seconds = compile_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checker")
        self._turn = asyncio.Lock()
        self._closed = False

    async def compile(self, schema: bytes) -> None:
        """Return if the canonical JSON is a schema. Raises `InvalidRequest` if not, `TooCostly`, and `Unavailable`."""
        await self._ask(schema, None, self._compile_seconds)

    async def check(self, schema: bytes, data: bytes) -> Violation | None:
        """Return the first violation of a schema. Raises `InvalidRequest` if it is none, `TooCostly`, and
        `Unavailable` if there is no process to ask.
        """
        answer = await self._ask(schema, data, self._check_seconds)
        return Violation(*answer["violation"]) if "violation" in answer else None

    async def close(self) -> None:
        """End the process. Later questions raise `Unavailable`."""
        self._closed = True
        async with self._turn:
            if self._process is not None:
                await self._replace(self._process)
            self._thread.shutdown(wait=False)

    async def _ask(self, schema: bytes, data: bytes | None, seconds: float) -> Any:
        # A caller that gives up before its turn leaves the queue: what nobody waits for would delay all others.
        await self._turn.acquire()
        # If it gives up later, the answer is nevertheless read, because the next question has the next answer.
        asking = asyncio.create_task(self._in_turn(schema, data, seconds))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        answer = await asyncio.shield(asking)
        if "invalid" in answer:
            message, field = answer["invalid"]
            raise InvalidRequest(message, reason=Reason.INVALID_SCHEMA, field=field)
        return answer

    async def _in_turn(self, schema: bytes, data: bytes | None, seconds: float) -> Any:
        """Ask the process, and end the turn that the caller has taken."""
        try:
            return await self._exchanged(schema, data, seconds)
        finally:
            self._turn.release()

    async def _exchanged(self, schema: bytes, data: bytes | None, seconds: float) -> Any:
        length = NO_DATA if data is None else len(data)
        request = b"".join((LENGTHS.pack(len(schema), length, seconds), schema, data or b""))
        for is_last in (False, True):
            process = await self._running()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await self._in_thread(_exchange, process, request)
            except (EOFError, ConnectionError, TimeoutError):
                await self._replace(process)
            except Exception as error:
                await self._replace(process)
                # -9 says that it ran until now.
                log.error("checker_failed", exit_code=process.returncode, exc_info=error)
                if is_last:
                    raise _unavailable() from None
                continue
            code = process.returncode
            log.warning("checker_ended", exit_code=code, data_bytes=0 if data is None else len(data))
            # Something else may have ended it, such as an operator: another process tries once more.
            if code == -signal.SIGPROF or is_last:
                raise TooCostly
        raise AssertionError("the second try returns or raises")

    async def _in_thread(self, work: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _replace(self, process: subprocess.Popen[bytes]) -> None:
        """End a process of which the state is not known. The next question starts another one."""
        self._process = None
        process.kill()  # so a thread that waits for its answer ends
        await self._in_thread(_closed, process)

    async def _running(self) -> subprocess.Popen[bytes]:
        """Return the process; start it if there is none. Raises `Unavailable`."""
        if self._closed:
            raise Unavailable("The server is shutting down.", reason=Reason.SHUTTING_DOWN)
        if self._process is not None and self._process.poll() is not None:
            await self._replace(self._process)
        if self._process is None:
            command = [*launcher(), sys.executable, "-m", "headgate_server.ingest.checker_process"]
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            try:
                # In this thread, which the kernel takes for the parent. It takes a millisecond.
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program
                    command, stdin=pipe, stdout=pipe, stderr=null, start_new_session=True
                )
            except Exception:
                log.exception("checker_not_started")
                raise _unavailable() from None
        return self._process


def _unavailable() -> Unavailable:
    return Unavailable("The process that checks events does not answer.")


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> Any:
    """Write a question and read its answer. Raises `EOFError` or a `ConnectionError` if the process has ended."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    process.stdin.write(request)
    process.stdin.flush()
    (length,) = ANSWER.unpack(_read(process.stdout, ANSWER.size))
    return orjson.loads(_read(process.stdout, length))


def _read(pipe: IO[bytes], size: int) -> bytes:
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError
    return found


def _closed(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was killed, and close its pipes."""
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None  # noqa: S101 - as in `_exchange`
        with suppress(ConnectionError):  # what was not written yet
            pipe.close()
