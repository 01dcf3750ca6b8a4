"""Look-ups of keys: calls that wait for different keys at the same time share one statement.

A look-up begins at once if none is in progress. Keys that are needed meanwhile are looked up together by the next one.
Each key has its own result: with many workspaces most calls look up a key, and a statement costs about as much for
fifty keys as for five.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from headgate_server.core.model import ApiKey
from headgate_server.core.types import KeyDigest
from headgate_server.store import Directory

_AT_ONCE = 64
"""Keys of one look-up."""
_PATIENCE = 0.25
"""Seconds. Keys wait no longer for a look-up that is in progress: its connection may hang, and others may not."""
_QUICKLY = 1.0
"""Seconds. If a look-up of several keys fails within this time, each is looked up alone, since the stored row of one
may be the cause. If the store does not answer, that would make every caller wait twice as long.
"""


class KeyLookUps:
    """Looks up keys in the directory. Used on one event loop."""

    def __init__(self, directory: Directory, found: Callable[[KeyDigest, ApiKey | None], None]):
        """`found` is called with each key that was looked up; None: there is no such key."""
        self._directory = directory
        self._found = found
        self._asked: dict[KeyDigest, asyncio.Future[ApiKey | None]] = {}
        self._waiting: list[KeyDigest] = []
        self._running: set[asyncio.Task[None]] = set()
        self._overdue: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no key waits or is being looked up."""
        return not self._asked and not self._running and self._overdue is None

    async def find(self, digest: KeyDigest) -> ApiKey | None:
        """Return the key with this SHA-256, None if there is none. Calls for the same key share its look-up. If a
        caller gives up, the look-up continues for the others.

        Raises what the directory raises for this key.
        """
        asked = self._asked.get(digest)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[digest] = loop.create_future()
            self._waiting.append(digest)
            if not self._running:
                self._begin()
            elif self._overdue is None:
                self._overdue = loop.call_later(_PATIENCE, self._begin)
        return await asyncio.shield(asked)

    def _begin(self) -> None:
        """Begin a look-up of the keys that wait."""
        self._overdue = None
        task = asyncio.create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if self._waiting:
            self._stop_waiting()
            self._begin()

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    async def _run(self) -> None:
        """Look up the first keys that wait. The task's first turn comes after those of the calls that have arrived, so
        their keys wait already.
        """
        digests, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        if not self._waiting:
            self._stop_waiting()
        try:
            if digests and not await self._look_up(digests, alone=len(digests) == 1):
                await asyncio.gather(*(self._look_up([digest], alone=True) for digest in digests))
        finally:
            for digest in digests:
                if (left := self._asked.pop(digest, None)) is not None:
                    left.cancel()

    async def _look_up(self, digests: Sequence[KeyDigest], *, alone: bool) -> bool:
        """Look up keys and answer their callers. Return False if it failed, and each has to be looked up alone."""
        began = time.monotonic()
        try:
            keys = await self._directory.find_keys(digests)
        except Exception as error:
            if not alone and time.monotonic() - began < _QUICKLY:
                return False
            for digest in digests:
                self._asked.pop(digest).set_exception(error)
            return True
        for digest in digests:
            key = keys.get(digest)
            self._found(digest, key)
            self._asked.pop(digest).set_result(key)
        return True
