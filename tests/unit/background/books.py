"""Ledgers in memory that grow when a test says so. tests/contract and tests/rpc test the real ones."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

from headgate_server.core import ledger
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import EventPage, EventQuery, Head, Position
from headgate_server.store import Ledgers


class Event(NamedTuple):
    """The fields of an event that a subscription reads. It is stored at the time of its sequence."""

    sequence: int
    id: bytes
    type: str


class Books:
    """Ledgers by workspace."""

    def __init__(self) -> None:
        self.ledgers: dict[int, list[Event]] = {}
        self.looks: list[set[int]] = []
        self.queries: list[EventQuery] = []
        self.fails = False
        self.scan = 1_000
        """Events that one page examines."""
        self.looked = asyncio.Event()
        self.open = asyncio.Event()
        """A page is returned, as it was read, once this is set."""
        self.open.set()

    def store(self, workspace_id: int, *types: str) -> None:
        """Add events to a ledger."""
        events = self.ledgers.setdefault(workspace_id, [])
        for kind in types:
            sequence = len(events) + 1
            events.append(Event(sequence, ledger.event_id(sequence, sequence.to_bytes(8)), kind))

    async def head(self, workspace_id: int) -> Head:
        """Return a ledger's head."""
        count = len(self.ledgers.get(workspace_id, []))
        return Head(count, b"", count)

    async def heads(self, workspace_ids: Collection[int]) -> Mapping[int, Head]:
        """Return the heads of these ledgers."""
        self.looks.append(set(workspace_ids))
        self.looked.set()
        if self.fails:
            raise Unavailable("The store is away.")
        return {each: await self.head(each) for each in workspace_ids}

    async def fetch(self, workspace_id: int, ids: Sequence[bytes]) -> list[Event]:
        """Return the events of these ids."""
        return [event for event in self.ledgers.get(workspace_id, []) if event.id in ids]

    async def place(self, workspace_id: int, sequence: int) -> Position:
        """Return the place of a sequence."""
        return Position(sequence, self.ledgers[workspace_id][sequence - 1].id) if sequence else Position()

    async def place_before(self, workspace_id: int, created_at: int) -> Position:
        """Return the place before a time."""
        return await self.place(workspace_id, min(created_at - 1, len(self.ledgers.get(workspace_id, []))))

    async def events(self, query: EventQuery) -> EventPage:
        """Return a page, of at most `scan` events that were looked at."""
        self.queries.append(query)
        if self.fails:
            raise Unavailable("The store is away.")
        after, start = query.after or b"", query.created_from or 0
        events = [one for one in self.ledgers[query.workspace_id] if one.id > after and one.sequence >= start]
        seen = events[: self.scan]
        found = [one for one in seen if query.type in (None, one.type)][: query.limit]
        if len(found) == query.limit and found[-1] is not seen[-1]:
            resume = found[-1].id
        else:
            resume = seen[-1].id if len(seen) < len(events) else b""
        await self.open.wait()
        return EventPage(found, resume or None)  # type: ignore[arg-type]

    def as_ledgers(self) -> Ledgers:
        """Return it as the store's topic."""
        return cast(Ledgers, self)
