"""The operator's use case of a move: everything of one store is copied into another, of either kind.

The copied ledgers themselves say how far the copy is: events are appended to the target's ledgers in the order of the
source's, so each ledger of the target is sound at every moment, and a copy that was killed goes on at its end. A
property of the target says that it is not whole yet, and nothing else opens it before that property is gone. Its value
is that of one run: of two copies into one target, the one that was begun first stops.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from headgate_server.access import admin
from headgate_server.core import timestamps
from headgate_server.core.checked_rows import LedgerRange
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Head, StoredEvent
from headgate_server.core.types import EventHash, EventId, WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.store import DataRefused, Store
from headgate_server.store.opening import alone, file_of
from headgate_server.store.transfer import COPYING, TABLES, End, Moved, Sum, key_of

_EVENTS = 2_000
"""Events of one transaction: enough that a commit costs little, and far below the store's deadline."""

_MAY_BE_LEFT_OUT = frozenset({"rejections"})
"""Tables whose rows are not promised to last. A row that the target cannot store, such as a text with a NUL, is left
out and counted.
"""

Report = Callable[[str], None]
"""Takes a line about the progress."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What the copy has."""

    workspaces: int
    events: int
    """In all ledgers."""
    new: int
    """Events that this run copied."""
    rows: int
    """In all other tables."""
    left_out: int
    """Rejections that the target cannot store."""
    whole: bool
    """Whether the target is whole, and can be served."""


class Unsound(Exception):
    """The target's ledgers have breaks. They are in the source too, or the target is damaged."""

    def __init__(self, reports: Sequence[admin.LedgerReport]):
        super().__init__("the ledgers have breaks")
        self.reports = reports


async def copy(
    source: str | Path, target: str | Path, *, live: bool = False, report: Report, clock: Clock = system_clock
) -> Copied:
    """Copy a store into another one that is empty, or go on with a copy that was begun.

    With `live` the source may be served meanwhile. Then only events are copied, and the target is not whole: copy again
    without it when the source is not served any more. Raises `SetupError`, and `Unsound` if the copy has breaks.
    """
    async with _both(source, target, live) as (old, new):
        run = _Copy(old, new, live, report)
        try:
            await run.begin(timestamps.format(clock()))
            copied = await run.ledgers()
            if live:
                return Copied(**copied, rows=0, left_out=0, whole=False)
            rows, left_out = await run.tables()
            await run.check()
            await new.transfer.end()
        except Moved:
            raise SetupError("Another copy into the target was begun: this one stops.") from None
        return Copied(**copied, rows=rows, left_out=left_out, whole=True)


@contextlib.asynccontextmanager
async def _both(source: str | Path, target: str | Path, live: bool) -> AsyncIterator[tuple[Store, Store]]:
    if _place(source) == _place(target):
        raise _same()
    # The schema of the source stays as it is: its own program may have to go on with it.
    async with contextlib.AsyncExitStack() as stack:
        if not live:
            stack.enter_context(alone(source))
        old = await stack.enter_async_context(admin.opened(source, as_is=True))
        if missing := await old.migrations.missing():
            raise SetupError(
                f"The source has an older schema ({len(missing)} migrations are missing): run headgate migrate on it."
            )
        if not live and (held := await old.leases.held()):
            raise SetupError(
                f"The source is still served: {held[0].holder} holds the lease {held[0].name}. Stop its servers, and "
                "wait 15 seconds if one was killed; or copy with --live first."
            )
        new = await stack.enter_async_context(admin.opened(target, filling=True))
        stack.enter_context(alone(target))
        yield old, new


class _Copy:
    def __init__(self, old: Store, new: Store, live: bool, report: Report):
        self._old = old
        self._new = new
        self._live = live
        self._report = report
        self._names: dict[WorkspaceId, str] = {}
        self._sums: dict[str, Sum] = {}

    async def begin(self, at: str) -> None:
        """Mark the target, and bring its workspaces up to date. Raises `SetupError` if it has anything else."""
        theirs = await self._old.transfer.workspaces()
        ours = await self._new.transfer.workspaces()
        if ours and await self._new.properties.get(COPYING) is None:
            raise SetupError(f"The target is not empty: it has the workspace {ours[0]['name']!r}.")
        await self._new.transfer.begin(f"{at} {token_hex(8)}")
        if await self._old.properties.get(COPYING) is not None:
            # Two URLs of one database.
            await self._new.transfer.end()
            raise _same()
        self._names = {row["id"]: row["name"] for row in theirs}
        heads = await self._old.transfer.ends()
        for one in await self._old.proof.ledgers():
            if one.workspace_id not in self._names or one.workspace_id not in heads:
                raise SetupError(
                    f"The source has rows of the workspace {one.name or one.workspace_id!r} that do not belong "
                    "together: headgate ledger verify shows them."
                )
        for row in ours:
            if self._names.get(row["id"]) != row["name"]:
                raise SetupError(f"The target holds something else: it has the workspace {row['name']!r}.")
        if theirs:
            await self._new.transfer.put_workspaces(theirs)

    async def ledgers(self) -> dict[str, int]:
        """Copy the events that the source has now."""
        ends, copied = await self._new.transfer.ends(), 0
        wanted = await self._old.transfer.ends()
        for workspace_id, name in self._names.items():
            copied += await self._ledger(workspace_id, name, ends[workspace_id], wanted[workspace_id])
        total = sum(wanted[one].sequence for one in self._names)
        return {"workspaces": len(self._names), "events": total, "new": copied}

    async def _ledger(self, workspace_id: WorkspaceId, name: str, end: End, wanted: End) -> int:
        """Copy one ledger up to the head that the source had. Return the number of copied events."""
        begun, resumed = end.sequence, end.sequence > 0
        after = await self._place(workspace_id, name, end)
        while end.sequence < wanted.sequence:
            limit = min(_EVENTS, wanted.sequence - end.sequence)
            page = await self._old.proof.page(LedgerRange(workspace_id), limit, after)
            self._check_follows(name, end, page.events)
            after = page.events[-1].id
            # Old events may have lost their identities to new ones since they were copied.
            released = await self._holders(workspace_id, page.events) if resumed or self._live else []
            try:
                end = await self._new.transfer.append(workspace_id, end, page.events, released)
            except Moved:
                raise _moved(name) from None
            except DataRefused as error:
                raise SetupError(
                    f"The target cannot store the events {page.events[0].sequence} to {page.events[-1].sequence} of "
                    f"the workspace {name!r}: {error}. headgate ledger verify shows whether the source is sound."
                ) from error
            self._report(f"{name}: {end.sequence} of {wanted.sequence} events")
        return end.sequence - begun

    async def _place(self, workspace_id: WorkspaceId, name: str, end: End) -> EventId | None:
        """Return the id of the event at which a ledger of the target ends; None if it is empty."""
        if not end.sequence:
            return None
        place = await self._old.ledgers.place(workspace_id, end.sequence)
        event = None if place.id is None else await self._old.proof.event(workspace_id, place.id)
        if event is None or (event.sequence, event.event_hash) != (end.sequence, end.hash):
            raise SetupError(
                f"The target holds something else: its ledger of the workspace {name!r} ends at {end.sequence} with an "
                "event that the source does not have."
            )
        return event.id

    def _check_follows(self, name: str, end: End, events: Sequence[StoredEvent]) -> None:
        """Raise `SetupError` unless the events come directly after `end`."""
        expected = range(end.sequence + 1, end.sequence + 1 + len(events))
        if not events or [event.sequence for event in events] != [*expected]:
            raise SetupError(
                f"The source's ledger of the workspace {name!r} has a break after {end.sequence}: headgate ledger "
                "verify shows it. A ledger with missing events cannot be copied."
            )

    async def _holders(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> list[EventId]:
        """Return the target's events that hold the identities of these events."""
        dedupes = [event.dedupe for event in events if event.dedupe is not None]
        return [link.id for link in (await self._new.proof.holders(workspace_id, dedupes)).values()] if dedupes else []

    async def tables(self) -> tuple[int, int]:
        """Copy all other tables anew. Return the number of their rows, and of those that were left out."""
        await self._new.transfer.clear()
        left_out = 0
        for table in TABLES:
            copied, after = Sum(), None
            while rows := await self._old.transfer.page(table, after):
                after = key_of(table, rows[-1])
                kept = await self._put(table, rows)
                left_out += len(rows) - len(kept)
                copied.add(kept)
            self._sums[table] = copied
            self._report(f"{table}: {copied.count} rows")
        return sum(one.count for one in self._sums.values()), left_out

    async def _put(self, table: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Write rows, and return those that were written."""
        try:
            await self._new.transfer.put(table, rows)
        except DataRefused as error:
            if table not in _MAY_BE_LEFT_OUT:
                raise SetupError(f"The target cannot store rows of the table {table}: {error}.") from error
            if len(rows) == 1:
                return []
            half = len(rows) // 2
            return [*await self._put(table, rows[:half]), *await self._put(table, rows[half:])]
        return rows

    async def check(self) -> None:
        """Compare the whole target with the source. Raises `SetupError` and `Unsound`."""
        wanted, found = await self._old.transfer.ends(), await self._new.transfer.ends()
        for workspace_id, name in self._names.items():
            old, new = wanted[workspace_id], found[workspace_id]
            if (old.sequence, old.hash) != (new.sequence, new.hash):
                raise SetupError(
                    f"The source has {old.sequence - new.sequence} newer events in the workspace {name!r}: something "
                    "still writes to it. Stop that, and run the same command again: it copies only what is new."
                )
            try:
                await self._new.transfer.put_end(workspace_id, old)
            except Moved:
                raise _moved(name) from None
        if {row["id"] for row in await self._old.transfer.workspaces()} != self._names.keys():
            raise SetupError("The source has new workspaces: something still writes to it.")
        await self._compare_tables()
        expected = {name: _head(wanted[one]) for one, name in self._names.items()}
        await self._verify(expected)

    async def _compare_tables(self) -> None:
        for table, copied in self._sums.items():
            there, after = Sum(), None
            while rows := await self._new.transfer.page(table, after):
                after = key_of(table, rows[-1])
                there.add(rows)
            if there != copied:
                raise SetupError(f"The target's table {table} is not as the source's: something else writes to it.")

    async def _verify(self, expected: Mapping[str, Head]) -> None:
        broken = []
        async for found in admin.verify_ledgers(self._new.proof, None, expected):
            self._report(f"{found.workspace.name}: {found.events_checked} events checked")
            broken += [found] if found.breaks else []
        if broken:
            raise Unsound(broken)


def _place(location: str | Path) -> str | Path:
    """Return what two names of one SQLite file have in common; a URL of another database as it is."""
    file = file_of(location)
    return location if file is None else file.resolve()


def _same() -> SetupError:
    return SetupError("The source and the target are the same store.")


def _head(end: End) -> Head:
    return Head(end.sequence, EventHash(end.hash), end.created_at)


def _moved(name: str) -> SetupError:
    return SetupError(f"Something else writes to the target's ledger of the workspace {name!r}: stop it.")
