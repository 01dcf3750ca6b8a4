"""Runs a command to its end, and shows its result."""

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click
import uvloop

from headgate_server.core.errors import HeadgateError, SetupError
from headgate_server.process import tracing
from headgate_server.process.outlet import STDOUT, was_missing

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

_Result = TypeVar("_Result")


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end. A `SetupError` becomes one line on standard error and exit code 2."""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            return uvloop.run(work)
    except (SetupError, HeadgateError) as error:
        if str(error):
            click.echo(f"headgate: {error}", err=True)
        sys.exit(2)
    sys.exit(130)


def show(*lines: str) -> None:
    """Write a command's result to standard output. Raises `SetupError` if it cannot be written."""
    check_output()
    try:
        for line in lines:
            click.echo(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # `headgate keys list | head -1`: the reader has read enough. Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        sys.exit(1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        raise SetupError(f"cannot write to standard output: {error.strerror}") from error


def check_output() -> None:
    """Raise `SetupError` if the process was started without a standard output."""
    if was_missing(STDOUT):
        raise SetupError("standard output is closed: there is nowhere to write to")


def output_takes(text: str) -> bool:
    """Write a text to standard output at once, without its queue. Return False if it cannot be written now."""
    poll = select.poll()
    poll.register(STDOUT, select.POLLOUT)
    if was_missing(STDOUT) or not any(event & select.POLLOUT for _, event in poll.poll(0)):
        return False
    try:
        return os.write(STDOUT, text.encode()) > 0
    except OSError:
        return False


@contextlib.asynccontextmanager
async def traced() -> AsyncIterator["Tracing | None"]:
    """Yield this process's tracing as `OTEL_*` asks for it, None without it. Exports the last spans after the block."""
    found = tracing.from_environment()
    try:
        yield found
    finally:
        if found is not None:
            await found.close()


class StoppedError(Exception):
    """A signal asked the process to end."""


async def unless(stop: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Return when one of the works ends, and raise its error if it had one. The others are cancelled and have ended
    then.

    Raises `StoppedError` if `stop` came first.
    """
    tasks = [asyncio.create_task(work) for work in works]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, *tasks), return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in tasks if task.done()]
    for task in (stopped, *tasks):
        task.cancel()
    await asyncio.gather(stopped, *tasks, return_exceptions=True)
    if stop.is_set():
        raise StoppedError
    for task in ended:
        task.result()
