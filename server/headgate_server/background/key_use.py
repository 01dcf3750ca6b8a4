"""The job that writes when keys were last used: once a minute for all keys together, never in a call."""

import asyncio

import structlog

from headgate_server.access.auth import Authenticator
from headgate_server.store import Directory

log = structlog.get_logger(__name__)

NAME = "key-use"

_SECONDS = 60.0
"""The time is known to the minute, so more writes would say nothing new."""
_CLOSE_SECONDS = 2.0
"""The longest time that the end of the process waits for the last write."""


class KeepKeyUse:
    """Writes the uses that the authenticator has noted."""

    def __init__(self, authenticator: Authenticator, directory: Directory, seconds: float = _SECONDS):
        self._authenticator = authenticator
        self._directory = directory
        self._seconds = seconds

    async def __call__(self) -> None:
        """Write until cancelled. Raises `Unavailable`; the next run writes what this one could not."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted since the last time. If that fails, it is noted again."""
        used = self._authenticator.take_used()
        if not used:
            return
        try:
            await self._directory.mark_used(used)
        except BaseException:
            self._authenticator.note_used(used)
            raise

    async def close(self) -> None:
        """Write the last uses for a bounded time. Called at the end of the process, after the last call."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.flush()
        except Exception as error:
            log.warning("key_use_lost", error=type(error).__name__)
