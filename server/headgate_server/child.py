"""A server process as its parent sees it: started, ready, stopped."""

import asyncio
import os
import sys
from collections.abc import Sequence

from headgate_server.errors import SetupError


class ServerProcess:
    """`headgate serve` as a child of this process.

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
        self.port = 0

    async def start(self) -> None:
        """Start the child and return once it takes calls; `port` is then its port.

        Raises `SetupError` if it ends before; it has said why on standard error.
        """
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
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            line = await asyncio.to_thread(pipe.readline)
        if not line:
            await self._process.wait()
            raise SetupError("")
        self.port = int(line)

    async def wait(self) -> int:
        """Return the exit code when the child ends."""
        assert self._process is not None  # noqa: S101 - only of a started child
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask the child to end, and return its exit code once it has; it bounds by itself how long it takes."""
        process = self._process
        assert process is not None  # noqa: S101 - only of a started child
        if process.returncode is None:
            process.terminate()
        return await process.wait()
