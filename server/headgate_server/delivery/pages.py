"""Reads pages of events for destinations. Destinations at the same place in a ledger share one read of it.

Most filters match few events, and most destinations are near the end of the ledger. So a ledger is read in windows: a
window has the kinds of the next ten thousand events. A destination whose filter matches none of these kinds skips the
window without reading events.
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

WINDOW_EVENTS = 10_000
"""The most events of one window. The database reads it in some milliseconds. At the end of a ledger a window has the
events since the last look, some thousand at most.
"""
_KEPT_WINDOWS = 8
"""Windows of a ledger that are kept. Destinations without a lag are all in the newest ones."""

EVERYTHING = EventFilter()


class Page(NamedTuple):
    """The next events that match, and the place up to which there are no others that match."""

    events: Sequence[StoredEvent]
    reached: Position


class Pages:
    """Reads ledgers for destinations. Used on one event loop only."""

    def __init__(self, matching: Matching):
        self._matching = matching
        self._ledgers: dict[WorkspaceId, _Ledger] = {}

    async def next(self, workspace_id: WorkspaceId, after: Position, event_filter: EventFilter, limit: int) -> Page:
        """Return at most `limit` matching events after a place. At the end of the ledger `reached` is `after`."""
        if event_filter == EVERYTHING:
            events = await self._matching.page(workspace_id, after, None, event_filter, limit)
            return Page(events, _place(events[-1]) if events else after)
        window = await self.window(workspace_id, after)
        if not window.has(event_filter):
            return Page((), window.end)
        events = await self._matching.page(workspace_id, after, window.end, event_filter, limit)
        # A page can be short because of its bytes. Only an empty page means that the window has no more matches.
        return Page(events, _place(events[-1]) if events else window.end)

    async def window(self, workspace_id: WorkspaceId, after: Position) -> Window:
        """Return a window that begins at or before a place. At the end of the ledger its end is `after`."""
        ledger = self._ledgers.setdefault(workspace_id, _Ledger())
        async with ledger.lock:
            for window in ledger.windows:
                if window.start.sequence <= after.sequence < window.end.sequence:
                    return window
            window = await self._matching.window(workspace_id, after, WINDOW_EVENTS)
            if window.end.sequence > after.sequence:
                ledger.windows.append(window)
            return window

    def forget(self, workspaces: set[WorkspaceId]) -> None:
        """Drop the windows of all other workspaces."""
        self._ledgers = {name: ledger for name, ledger in self._ledgers.items() if name in workspaces}


class _Ledger:
    """The windows of one ledger."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque(maxlen=_KEPT_WINDOWS)
        self.lock = asyncio.Lock()


def _place(event: StoredEvent) -> Position:
    return Position(event.sequence, event.id)
