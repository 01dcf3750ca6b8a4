"""Tells the deliveries of a ledger that it has new events.

Most destinations wait at the ledger's end, and their filters match few events. So the kinds of the new events are read
once for all deliveries that wait. Those whose filters match none of these kinds are moved on, and their tasks are not
woken.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from headgate_server.core.model import Position
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery.pages import Pages
from headgate_server.store.matching import Window


class Waiter(Protocol):
    """A delivery that may wait for events."""

    @property
    def waits_at(self) -> Position | None:
        """Where it waits for events although the ledger has more. None means that it does not wait, or that all events
        match.
        """

    def skips(self, window: Window) -> bool:
        """Move to the end of a window that begins at or before `waits_at`, if none of its events matches. Return
        whether it has moved.
        """

    def wake(self) -> None:
        """Let it look for events itself."""


class Notifier:
    """Tells the deliveries of one ledger. Used on one event loop only."""

    def __init__(self, workspace_id: WorkspaceId, pages: Pages, woken: Callable[[], None] = lambda: None):
        """`woken` is called for each delivery that is woken."""
        self._workspace_id = workspace_id
        self._pages = pages
        self._woken = woken
        self._waiters: list[Waiter] = []
        self._task: asyncio.Task[None] | None = None

    def tell(self, waiters: Iterable[Waiter]) -> None:
        """Tell deliveries whose ledger has grown. Those that have to look for events are woken."""
        for waiter in waiters:
            if waiter.waits_at is None:
                self._wake(waiter)
            else:
                self._waiters.append(waiter)
        if self._waiters and self._task is None:
            self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """Tell no further delivery."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiters:
                waiters, self._waiters = self._waiters, []
                await self._move(waiters)
        finally:
            self._task = None

    async def _move(self, waiters: list[Waiter]) -> None:
        """Move deliveries to the ledger's end, and wake those for which there may be a matching event."""
        while waiters := [one for one in waiters if one.waits_at is not None]:
            first = min((one.waits_at for one in waiters if one.waits_at is not None), key=lambda place: place.sequence)
            try:
                window = await self._pages.window(self._workspace_id, first)
            except Exception:
                # Each delivery meets the error itself, logs it and pauses.
                window = Window(first, first, frozenset())
            if window.end.sequence <= first.sequence:
                # The head is visible before its events are. The deliveries look again.
                for one in waiters:
                    self._wake(one)
                return
            waiters = [one for one in waiters if not self._is_woken(one, window)]

    def _is_woken(self, waiter: Waiter, window: Window) -> bool:
        """Wake a delivery that has a matching event in a window, or move it. Return whether it was woken."""
        place = waiter.waits_at
        if place is None or not window.start.sequence <= place.sequence < window.end.sequence or waiter.skips(window):
            return False
        self._wake(waiter)
        return True

    def _wake(self, waiter: Waiter) -> None:
        self._woken()
        waiter.wake()
