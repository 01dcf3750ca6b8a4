"""Pages of what destinations want, with one look at a stretch of a ledger for all destinations that are there.

Most destinations want few of the events, and those that keep up are all at the same place. So a ledger is looked at in
windows: which kinds of events occur in the next two thousand. A destination that wants none of them moves on without
reading one.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from headgate_server.core.destinations import EventFilter
from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.store import Matching
from headgate_server.store.matching import Window

WINDOW_EVENTS = 2_000
"""Events of one window: some milliseconds of a database's work."""
_KEPT_WINDOWS = 8
"""Windows of a ledger that are remembered: destinations that keep up are all in the newest ones."""

EVERYTHING = EventFilter()


class Page(NamedTuple):
    """The next events that a destination wants, and the place up to which there are no others."""

    events: Sequence[StoredEvent]
    reached: Position


class Pages:
    """Reads ledgers for destinations. Lives on one event loop."""

    def __init__(self, matching: Matching):
        self._matching = matching
        self._ledgers: dict[WorkspaceId, _Ledger] = {}

    async def next(self, workspace_id: WorkspaceId, after: Position, wanted: EventFilter, limit: int) -> Page:
        """Return what follows a place: at most `limit` events. At the end of the ledger `reached` is `after`."""
        if wanted == EVERYTHING:
            found = await self._matching.page(workspace_id, after, None, wanted, limit)
            return Page(found, _place(found[-1]) if found else after)
        window = await self._window(workspace_id, after)
        if not any(wanted.matches(*kind) for kind in window.kinds):
            return Page((), window.end)
        found = await self._matching.page(workspace_id, after, window.end, wanted, limit)
        # Fewer than asked for may be the page's bytes: only of none it is known that none follow.
        return Page(found, _place(found[-1]) if found else window.end)

    async def _window(self, workspace_id: WorkspaceId, after: Position) -> Window:
        ledger = self._ledgers.setdefault(workspace_id, _Ledger())
        async with ledger.looking:
            for window in ledger.windows:
                if window.start.sequence <= after.sequence < window.end.sequence:
                    return window
            window = await self._matching.window(workspace_id, after, WINDOW_EVENTS)
            if window.end.sequence > after.sequence:
                ledger.windows.append(window)
            return window

    def forget(self, workspaces: set[WorkspaceId]) -> None:
        """Forget the ledgers of all other workspaces."""
        self._ledgers = {name: ledger for name, ledger in self._ledgers.items() if name in workspaces}


class _Ledger:
    """What is known of one ledger."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque(maxlen=_KEPT_WINDOWS)
        self.looking = asyncio.Lock()


def _place(event: StoredEvent) -> Position:
    return Position(event.sequence, event.id)
