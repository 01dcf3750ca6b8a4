"""A server process as its parent sees it: started, ready, stopped."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

from headgate_server.core.errors import SetupError


class ServerProcess:
    """`headgate serve` as a child of this process. It may be started again once it has ended.

    The child is in a session of its own, so that Ctrl-C reaches only the parent, which ends its children in order.
    `launcher` is the beginning of a command line that runs the rest of it and sees to it that it dies with this
    process, however this dies.
    """

    def __init__(self, launcher: Sequence[str], arguments: Sequence[str], store_url: str):
        self._launcher = launcher
        self._arguments = arguments
        # A store URL may hold a password, so it is no argument, which everybody on the machine can read.
        self._environment = {**os.environ, "HEADGATE_STORE": store_url}
        self._process: asyncio.subprocess.Process | None = None
        self._takes_calls = False
        self.port = 0

    async def start(self) -> None:
        """Start the child and return once it takes calls; `port` is then its port.

        Raises `SetupError` if it ends before; it has said why on standard error. Cancelled, it leaves the child to
        `stop`.
        """
        self._takes_calls = False
        reader, writer = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._launcher,
                sys.executable,
                "-m",
                "headgate_server",
                "serve",
                *self._arguments,
                "--ready-fd",
                str(writer),
                pass_fds=(writer,),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        line = await _line(reader)
        if not line:
            await self._process.wait()
            raise SetupError("")
        self.port = int(line)
        self._takes_calls = True

    async def wait(self) -> int:
        """Return the exit code when the child ends; negative: the signal that ended it."""
        assert self._process is not None  # noqa: S101 - only of a started child
        return await self._process.wait()

    async def stop(self, patience: float) -> None:
        """Ask the child to end, and return once it has. May be called whatever became of `start`.

        One that has not ended after `patience` seconds is killed, and so is one that takes no calls yet: nothing that
        was acknowledged is lost by that.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return
        # It may end by itself meanwhile.
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience if self._takes_calls else 0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _line(descriptor: int) -> bytes:
    """Return what is written to a pipe up to the first end of line, or up to its end; closes it."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
