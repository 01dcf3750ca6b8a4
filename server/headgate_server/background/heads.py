"""The heads of the watched ledgers. One query in a process serves all readers that wait for events.

A commit of the same process is found at once, a commit of another process within a quarter of a second. LISTEN/NOTIFY
is not used, because NOTIFY takes a lock on the whole database at commit.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from headgate_server.background.wakeup import Wakeup
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Head
from headgate_server.core.types import EventHash, WorkspaceId
from headgate_server.process.causes import Causes
from headgate_server.store import Ledgers

NAME = "heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsConfig:
    """How often the heads are read. Times in seconds."""

    shortest_poll: float = 0.02
    longest_poll: float = 0.25
    """The time between two queries. It grows while no events come, to four queries a second."""
    between: float = 0.01
    """The shortest time between two queries, however many commits there are: at most a hundred queries a second."""


class WatchedHead:
    """The head of one ledger, as it was read last."""

    def __init__(self) -> None:
        self.head = Head(0, EventHash(b""), 0)
        self.watchers = 0
        self._moved = asyncio.Event()

    def saw(self, head: Head) -> bool:
        """Record a head that was read. Return whether the ledger has grown."""
        if head.sequence <= self.head.sequence:
            return False
        self.head = head
        self._moved.set()
        self._moved = asyncio.Event()
        return True

    async def beyond(self, sequence: int, seconds: float) -> bool:
        """Return True as soon as the head is beyond this sequence, False after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.head.sequence <= sequence:
                    await self._moved.wait()
        return self.head.sequence > sequence


class Heads:
    """Watches the heads of ledgers. It is one job, which runs as long as there may be readers."""

    def __init__(self, ledgers: Ledgers, bell: Wakeup, config: HeadsConfig | None = None):
        """Commits of this process ring the `bell`."""
        self._ledgers = ledgers
        self._bell = bell
        self._config = config or HeadsConfig()
        self._causes = Causes()
        self._watched: dict[WorkspaceId, WatchedHead] = {}
        self._any = asyncio.Event()

    @contextlib.contextmanager
    def watching(self, workspace_id: WorkspaceId) -> Iterator[WatchedHead]:
        """Watch the head of a workspace's ledger until the block ends. The next query reads it."""
        watched = self._watched.setdefault(workspace_id, WatchedHead())
        watched.watchers += 1
        self._any.set()
        self._bell.ring()
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[workspace_id]
            if not self._watched:
                self._any.clear()

    async def __call__(self) -> None:
        """Read the heads until cancelled, while any ledger is watched. If the store cannot be read, try again."""
        config = self._config
        pause = config.shortest_poll
        while True:
            await self._any.wait()
            moved = await self._look()
            pause = config.shortest_poll if moved else min(pause * 2, config.longest_poll)
            await asyncio.sleep(config.between)
            if await self._bell.wait(pause):
                pause = config.shortest_poll

    async def _look(self) -> bool:
        """Read the heads of all watched ledgers. Return whether any has grown."""
        try:
            heads = await self._ledgers.heads(self._watched.keys())
        except Unavailable as error:
            self._causes.tell("heads_not_read", error)
            return False
        grown = [self._watched[found].saw(head) for found, head in heads.items() if found in self._watched]
        return any(grown)
