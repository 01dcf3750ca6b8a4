"""A sound ledger that tests change behind the server's back, and what a check of it finds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from headgate_server.access import admin
from headgate_server.core.ledger import BreakType
from headgate_server.core.model import EventQuery, Head, StoredEvent, Workspace
from headgate_server.reading.verify import verify
from headgate_server.store import Store
from headgate_server.store.schema import events as events_table
from tests.support import database
from tests.support.drafts import append, draft

CONTENT, HASH, CHAIN, HEAD = (
    BreakType.CONTENT_MISMATCH,
    BreakType.HASH_MISMATCH,
    BreakType.CHAIN_BREAK,
    BreakType.HEAD_MISMATCH,
)
COUNT = 6
YEAR = 365 * 86_400 * 1_000_000

Found = set[tuple[int, str]]


class Tampered(NamedTuple):
    """A ledger of six sound events, its tables' copies, and a connection that changes them."""

    store: Store
    url: str
    workspace: Workspace
    events: Sequence[StoredEvent]
    head: Head
    run: Callable[[str], Awaitable[None]]

    async def change(self, *statements: str) -> None:
        for statement in statements:
            await self.run(statement)

    async def restore(self) -> None:
        for table in ("events", "heads", "workspaces"):
            await self.change(f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM saved_{table}")

    async def found(self, limit: int = 100, **options: object) -> Found:
        """Return (sequence, type) of each break, page after page."""
        breaks: Found = set()
        after = None
        while True:
            page = await verify(self.store.proof, self.workspace, limit=limit, after=after, **options)  # type: ignore[arg-type]
            breaks |= {(one.sequence, one.type) for one in page.breaks}
            after = page.resume
            if after is None:
                return breaks

    def sql(self, value: bytes) -> str:
        return database.literal(self.url, value)

    def sql_id(self, value: bytes) -> str:
        return database.id_literal(self.url, value)

    def insertion(self, like: StoredEvent, event_id: bytes, sequence: int) -> str:
        """Return the statement that inserts a copy of an event under another id and sequence."""
        copied = ", ".join(
            {"id": self.sql_id(event_id), "sequence": str(sequence), "dedupe": "NULL"}.get(column.name, column.name)
            for column in events_table.columns
        )
        return f"INSERT INTO events SELECT {copied} FROM events WHERE id = {self.sql_id(like.id)}"


async def check(tampered: Tampered, what: str, wanted: Found, *, in_a_range: bool = True) -> None:
    """Check that a whole verification finds `wanted`, and so do one with an expected head, one in pages, and (if the
    break shows there) one of a range with all of the events.
    """
    first, last = tampered.events[0].created_at, tampered.events[-1].created_at
    with_head = await tampered.found(expected=tampered.head)
    assert with_head - {(COUNT, HEAD)} == wanted - {(COUNT, HEAD)}, what
    assert await tampered.found(limit=4) == wanted, what
    bounded = await tampered.found(created_from=first - 10 * YEAR, created_to=last + 2 * YEAR)
    assert bounded == ({each for each in wanted if each[1] != HEAD} if in_a_range else set()), what


async def reports(store: Store) -> dict[str, Found]:
    """Return the breaks of every ledger of a store, by the name of its workspace."""
    return {
        report.workspace.name: {(one.sequence, one.type) for one in report.breaks}
        async for report in admin.verify_ledgers(store.proof, None)
    }


@asynccontextmanager
async def opened(store: Store, store_url: str, workspace: int) -> AsyncIterator[Tampered]:
    """Yield a workspace with six events, every other one with a key, and copies of its tables."""
    drafts = [
        draft(
            f"k{n}" if n % 2 else None,
            {"n": n},
            subject=f"s{n}",
            occurred_at=n,
            attributes=b'{"n":%d}' % n,
        )
        for n in range(1, COUNT + 1)
    ]
    for one in drafts:
        await append(store, workspace, one)
    events = (await store.ledgers.events(EventQuery(workspace_id=workspace, limit=100))).events
    async with database.connected(store_url) as run:
        for table in ("events", "heads", "workspaces"):
            await run(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
        yield Tampered(store, store_url, Workspace(workspace, "acme"), events, await store.ledgers.head(workspace), run)
