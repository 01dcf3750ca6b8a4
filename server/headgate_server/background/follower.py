"""Followers: background readers of ledgers, each with a cursor for every workspace.

Within a workspace ids, `sequence` and `created_at` have the same order, and the append holds the head's lock until its
commit. So a reader that reads in order misses no event. The ledger is the outbox, and the append does not depend on any
follower.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from headgate_server.background.supervisor import BackOff
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import EventQuery, Lagging, Lease, Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.process.causes import told
from headgate_server.store import Cursors, Ledgers

log = structlog.get_logger(__name__)


class Follower(Protocol):
    """Processes the events of every ledger, in order."""

    name: str
    """The name of the cursors. A follower with a new name begins at the beginning of every ledger."""

    async def process(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent], lease: Lease) -> None:
        """Process the next events of one ledger. When it returns, the result MUST be durable.

        Events are processed at least once: the same events come again if the process ends, or loses its lease, before
        the cursor has moved. Writes to the store MUST name the lease's epoch. An error delays only this ledger: the
        same events come again after a pause.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingConfig:
    """How a follower reads. Times in seconds."""

    page_events: int = 500
    """Events that are processed between two moves of the cursor. At most this many are processed again after a crash.
    """
    ledgers: int = 100
    """Ledgers that one query of the heads returns. Ledgers that wait longest come first, so the others come next."""
    shortest_poll: float = 0.02
    longest_poll: float = 0.25
    """The time between two queries of the heads. It grows while no events come. A commit of the same process wakes the
    follower at once; only commits of other processes are found by the query.
    """


class Following:
    """The work of one follower, under a lease: it finds the ledgers that have new events, reads and processes the
    events, and moves the cursor.
    """

    def __init__(
        self,
        follower: Follower,
        ledgers: Ledgers,
        cursors: Cursors,
        wakeup: Wakeup,
        *,
        config: FollowingConfig | None = None,
        back_off: BackOff | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._follower = follower
        self._ledgers = ledgers
        self._cursors = cursors
        self._wakeup = wakeup
        self._config = config or FollowingConfig()
        self._back_off = back_off or BackOff()
        self._timer = timer
        self._resting: dict[WorkspaceId, _Rest] = {}

    async def __call__(self, lease: Lease) -> None:
        """Follow until cancelled. Raises what the store raises, and `LeaseLost` if another process has the lease."""
        config = self._config
        pause = config.shortest_poll
        while True:
            moved = await self._round(lease)
            pause = config.shortest_poll if moved else min(pause * 2, config.longest_poll)
            if not moved and await self._wakeup.wait(pause):
                pause = config.shortest_poll

    async def _round(self, lease: Lease) -> bool:
        """Process the next page of every ledger that has new events. Return whether any event was processed."""
        now = self._timer()
        resting = [workspace_id for workspace_id, rest in self._resting.items() if rest.until > now]
        moved = False
        for lagging in await self._cursors.lagging(self._follower.name, self._config.ledgers, without=resting):
            moved = await self._read_on(lagging, lease) or moved
        return moved

    async def _read_on(self, lagging: Lagging, lease: Lease) -> bool:
        workspace_id, position = lagging.workspace_id, lagging.position
        page = await self._ledgers.events(
            EventQuery(workspace_id=workspace_id, limit=self._config.page_events, after=position.id)
        )
        if not page.events:
            return False
        try:
            await self._follower.process(workspace_id, page.events, lease)
        except LeaseLost:
            raise
        except Exception as error:
            self._rest(workspace_id, error)
            return False
        self._resting.pop(workspace_id, None)
        newest = page.events[-1]
        reached = Position(newest.sequence, newest.id)
        await self._cursors.move(self._follower.name, workspace_id, position, reached, lease)
        return True

    def _rest(self, workspace_id: WorkspaceId, error: Exception) -> None:
        earlier = self._resting.get(workspace_id)
        pause = self._back_off.after(earlier.pause if earlier else 0.0, 0.0)
        self._resting[workspace_id] = _Rest(pause, self._timer() + pause)
        log.warning(
            "follower_failed",
            follower=self._follower.name,
            workspace_id=workspace_id,
            again_in=pause,
            **told(error),
        )


@dataclass(frozen=True, slots=True)
class _Rest:
    """The pause after a failure in one ledger, and the time at which it ends."""

    pause: float
    until: float
