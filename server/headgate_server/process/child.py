"""Child processes that are kept alive, and a server process as one of them."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import structlog

from headgate_server.core.errors import SetupError
from headgate_server.process import notify
from headgate_server.process.launcher import end, launcher
from headgate_server.process.metrics.cells import Snapshot
from headgate_server.process.metrics.line import Line

log = structlog.get_logger(__name__)


class Child(Protocol):
    """A process that can be started again once it has ended, on the same port."""

    kind: str
    """Its name in the log: "worker", "envoy"."""

    @property
    def port(self) -> int:
        """The port on which it accepts calls, once `start` has returned for the first time."""

    async def start(self) -> None:
        """Start it and return once it accepts calls. Raises `SetupError` if it cannot start; no process is left then.

        The error's message is empty if the process itself wrote the reason on standard error.
        """

    async def wait(self) -> int:
        """Return the exit code when it ends. A negative code is the number of the signal that ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How soon a dead process is started again, and how many starts may fail. Times in seconds."""

    first_pause: float = 0.25
    """Short: a single death is an accident, and if no other process takes its calls, callers wait."""
    growth: float = 3.0
    longest_pause: float = 30.0
    calm: float = 60.0
    """A process that ran this long did not fail at start-up: the pause is short again."""
    failures: int = 5
    """Starts in a row that may fail. With the pauses above they take half a minute, in which a database can restart."""


async def keep(child: Child, policy: RestartPolicy, *, started: bool = True) -> NoReturn:
    """Start a child again whenever it ends, until cancelled. With `started=False`, start it first. Raises `SetupError`
    if it cannot be started, or started again.
    """
    clock = asyncio.get_running_loop().time
    pause = policy.first_pause
    if not started:
        await _started(child, 0, policy)
        log.info(f"{child.kind}_started", port=child.port)
    while True:
        began = clock()
        code = await child.wait()
        if clock() - began >= policy.calm:
            pause = policy.first_pause
        log.warning(f"{child.kind}_died", port=child.port, exit_code=code, restart_in=pause)
        pause = await _started(child, pause, policy)
        log.info(f"{child.kind}_replaced", port=child.port)


async def _started(child: Child, pause: float, policy: RestartPolicy) -> float:
    """Start a child after `pause` seconds, and again if that fails. Return the pause before the next restart."""
    for failures in range(1, policy.failures + 1):
        await asyncio.sleep(pause)
        pause = min(pause * policy.growth, policy.longest_pause) or policy.first_pause
        try:
            await child.start()
        except SetupError as error:
            if failures < policy.failures:
                why = {"error": str(error)} if str(error) else {}
                log.warning(f"{child.kind}_not_started", port=child.port, restart_in=pause, **why)
                continue
            what = f"on port {child.port} died and could not be started again" if child.port else "could not be started"
            raise SetupError(
                f"the {child.kind} {what}, {failures} times in a row; {error or 'its log says why'}"
            ) from error
        return pause
    raise AssertionError("a policy allows at least one failure")


class ServerProcess:
    """`headgate serve` as a child of this process. It may be started again once it has ended.

    The child is in its own session, so that Ctrl-C reaches only the parent, which ends its children in order. The
    kernel kills it when this process ends, in any way.
    """

    kind = "worker"

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], start_seconds: float, *, measured: bool = False
    ):
        """`arguments` follow `headgate serve`, `environment` is added to this process's own. A start that takes longer
        than `start_seconds` has failed. With `measured` its metrics can be read.
        """
        self.generation = 0
        """How often it was started."""
        self._measured = measured
        self._line: Line | None = None
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._environment.pop(notify.VARIABLE, None)  # only the parent speaks for the service
        self._start_seconds = start_seconds
        self._process: Process | None = None
        self._takes_calls = False
        self._port = 0

    @property
    def port(self) -> int:
        """The port on which it accepts calls, once `start` has returned."""
        return self._port

    async def start(self, seconds: float | None = None) -> None:
        """Start the child and return once it accepts calls.

        Raises `SetupError` with an empty message if the child ends first: it wrote the reason on standard error. Raises
        `SetupError` as well if the child accepts no calls within `seconds` (default: the constructor's), and kills it.
        If cancelled, the child still runs, and `stop` ends it.
        """
        seconds = seconds or self._start_seconds
        self._takes_calls = False
        reader = await self._spawn()
        try:
            async with asyncio.timeout(seconds):
                line = await _line(reader)
        except TimeoutError:
            await self.stop(0)
            raise SetupError(f"the worker took no calls within {seconds:g} s of its start") from None
        if not line:
            await self.wait()
            raise SetupError("")
        self._port = int(line)
        self._takes_calls = True

    async def read(self) -> Snapshot | None:
        """Return the child's metrics, None if it has ended or is not measured."""
        return None if self._line is None else await self._line.read()

    async def _spawn(self) -> int:
        """Start the process, and return the descriptor from which its port can be read."""
        self.generation += 1
        reader, writer = os.pipe()
        passed: tuple[int, ...] = (writer,)
        further: tuple[str, ...] = ()
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._measured:
            line = self._line = Line()
            passed, further = (writer, line.descriptor), ("--metrics-fd", str(line.descriptor))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *launcher(),
                sys.executable,
                "-m",
                "headgate_server",
                "serve",
                *self._arguments,
                "--ready-fd",
                str(writer),
                *further,
                pass_fds=passed,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            if self._line is not None:
                self._line.sent()
        return reader

    async def wait(self) -> int:
        """Return the exit code when the child ends. A negative code is the number of the signal that ended it."""
        assert self._process is not None  # noqa: S101 - only for a started child
        return await self._process.wait()

    async def stop(self, patience: float) -> None:
        """Ask the child to end, and return once it has ended. May be called even if `start` failed.

        A child that has not ended after `patience` seconds is killed. So is a child that accepts no calls yet. Neither
        loses an acknowledged event.
        """
        if self._process is not None and self._process.returncode is None:
            await end(self._process, patience if self._takes_calls else 0)
        if self._line is not None:
            self._line.close()
            self._line = None


async def _line(descriptor: int) -> bytes:
    """Return the bytes of a pipe up to the first end of line, or up to its end, and close it."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
