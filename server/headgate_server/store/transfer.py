"""Moves rows from one store into another, as they are."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, LargeBinary, Table, Text, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.dialects import postgresql

from headgate_server.core import ledger, timestamps
from headgate_server.core.checked_rows import StoredHead
from headgate_server.core.model import Head, StoredEvent
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.store import properties as facts
from headgate_server.store.database import Database
from headgate_server.store.ledgers import PAGE_BYTES
from headgate_server.store.schema import events, heads, leases, metadata, properties, workspaces

T = TypeVar("T")

COPYING = "copying"
"""The property of a store into which another one is being copied. Each run of the copy gives it a value of its own."""

ROWS = 200
"""The most rows of one page, except events."""

LEFT_OUT = frozenset({leases.name, properties.name})
"""Tables of which a copy has its own rows: who does which work now, and facts about the store itself."""

_WITH_EVENTS = (workspaces.name, heads.name, events.name)
"""Tables that are copied workspace by workspace."""

TABLES = tuple(
    table.name for table in metadata.sorted_tables if table.name not in LEFT_OUT and table.name not in _WITH_EVENTS
)
"""The other tables, each after those that it refers to."""


class End(NamedTuple):
    """A row of `heads`, except the workspace."""

    sequence: int
    hash: bytes
    created_at: int
    quota: int | None
    month: int
    month_events: int


class Moved(Exception):
    """Something else writes to the store that is filled: a ledger does not end where the last rows ended, or another
    copy was begun.
    """


class Transfer:
    """Reads the rows of a store, and writes them into another. Rows MUST be written as they were read."""

    def __init__(self, database: Database):
        self._database = database
        self._mark: str | None = None

    async def begin(self, mark: str) -> None:
        """Mark the store as half a copy. A copy into it that was begun before gets `Moved` with its next write."""
        await self._database.write(lambda connection: facts.put(connection, COPYING, mark))
        self._mark = mark

    async def end(self) -> None:
        """Remove the mark. Raises `Moved`."""
        await self._write(lambda connection: facts.put(connection, COPYING, None))

    async def workspaces(self) -> list[Mapping[str, Any]]:
        """Return every row of `workspaces`, by id."""
        statement = select(workspaces).order_by(workspaces.c.id)
        return await self._database.read(
            lambda connection: [dict(row) for row in connection.execute(statement).mappings()]
        )

    async def put_workspaces(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add workspaces with empty ledgers, and change those that are there. Ids that the database gives later are
        higher.
        """
        await self._write(lambda connection: _put_workspaces(self._database, connection, rows))

    async def ends(self) -> dict[WorkspaceId, End]:
        """Return every row of `heads`."""
        statement = select(heads.c.workspace_id, *(heads.c[name] for name in End._fields))
        return await self._database.read(
            lambda connection: {row[0]: End(*row[1:]) for row in connection.execute(statement)}
        )

    async def put_end(self, workspace_id: WorkspaceId, end: End) -> None:
        """Set the quota and the count of the month, of a ledger that ends there. Raises `Moved` if it does not."""
        here = (heads.c.workspace_id == workspace_id, heads.c.sequence == end.sequence, heads.c.hash == end.hash)
        statement = update(heads).where(*here).values(end._asdict())
        if not await self._write(lambda connection: connection.execute(statement).rowcount):
            raise Moved

    async def append(
        self, workspace_id: WorkspaceId, end: End, rows: Sequence[StoredEvent], released: Collection[EventId]
    ) -> End:
        """Write events behind the end of a ledger, and return the new end. Events `released` lose their identity
        first. Raises `Moved`, and `DataRefused` if the database cannot store one of them.
        """
        new = _end_after(end, rows)

        def write(connection: Connection) -> None:
            here = heads.c.workspace_id == workspace_id
            row = connection.execute(select(heads.c.sequence, heads.c.hash).where(here).with_for_update()).first()
            if row is None or tuple(row) != (end.sequence, end.hash):
                raise Moved
            if released:
                old = (events.c.workspace_id == workspace_id, events.c.id.in_(released))
                connection.execute(update(events).where(*old).values(dedupe=None))
            self._database.load(connection, rows)
            connection.execute(update(heads).where(here).values(new._asdict()))

        await self._write(write)
        return new

    async def page(self, table: str, after: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        """Return the next rows of a table after the primary key `after`, which `key_of` returns: at most `ROWS`, and
        about `PAGE_BYTES`, but at least one.
        """
        return await self._database.read(lambda connection: _page(connection, metadata.tables[table], after))

    async def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows. Raises `Moved`, and `DataRefused` if the database cannot store one of them."""
        target = metadata.tables[table]
        names = [column.name for column in target.columns]
        values = [dict(zip(names, row, strict=True)) for row in rows]
        await self._write(lambda connection: connection.execute(insert(target), values).close())

    async def clear(self) -> None:
        """Delete the rows of all `TABLES`. Raises `Moved`."""
        for table in reversed(TABLES):
            await self._write(partial(_clear, metadata.tables[table]))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Return the result of `work` after the commit. Raises `Moved` if another copy was begun."""

        def checked(connection: Connection) -> T:
            # The lock makes another copy wait with its mark until this transaction has ended.
            mine = select(properties.c.value).where(properties.c.name == COPYING).with_for_update()
            if self._mark is not None and connection.execute(mine).scalar_one_or_none() != self._mark:
                raise Moved
            return work(connection)

        return await self._database.write(checked)


class Sum:
    """A digest of rows in any order, with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._total = 0

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Count rows."""
        self.count += len(rows)
        for row in rows:
            self._total += int.from_bytes(sha256(repr(row).encode(errors="surrogateescape")).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.count, self._total) == (other.count, other._total)

    __hash__ = None  # type: ignore[assignment] # it changes


def key_of(table: str, row: tuple[Any, ...]) -> Sequence[Any]:
    """Return the primary key of a row."""
    names = [column.name for column in metadata.tables[table].columns]
    return [row[names.index(column.name)] for column in metadata.tables[table].primary_key]


def _clear(table: Table, connection: Connection) -> None:
    connection.execute(delete(table))


def _page(connection: Connection, table: Table, after: Sequence[Any] | None) -> list[tuple[Any, ...]]:
    key = list(table.primary_key)
    here = [] if after is None else [tuple_(*key) > tuple_(*after, types=[column.type for column in key])]
    # An answer of a large batch has a MiB.
    sizes = connection.execute(
        select(_size_of(table)).select_from(table).where(*here).order_by(*key).limit(ROWS)
    ).scalars()
    fit = sum(total <= PAGE_BYTES for total in accumulate(sizes))
    return [tuple(row) for row in connection.execute(select(table).where(*here).order_by(*key).limit(max(1, fit)))]


def _size_of(table: Table) -> Any:
    """Return the bytes of a row, as far as they have no small bound."""
    long = [
        column for column in table.columns if isinstance(column.type, LargeBinary | Text) and not column.type.length
    ]
    return sum((func.coalesce(func.octet_length(column), 0) for column in long), start=literal(0))


def _put_workspaces(database: Database, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    known = set(connection.execute(select(workspaces.c.id)).scalars())
    for row in rows:
        new = postgresql.insert(workspaces).values(row)
        changed = {name: value for name, value in row.items() if name != "id"}
        connection.execute(new.on_conflict_do_update(index_elements=[workspaces.c.id], set_=changed))
        if row["id"] not in known:
            genesis: Head = ledger.genesis(row["name"])
            connection.execute(insert(heads).values(workspace_id=row["id"], **genesis._asdict()))
    database.continue_ids(connection, connection.execute(select(func.max(workspaces.c.id))).scalar_one() or 0)


def _end_after(end: End, rows: Sequence[StoredEvent]) -> End:
    """Return the end of a ledger after these events, with the count that `settle` would have made."""
    last = rows[-1]
    month = ledger.counted_month(StoredHead(last.sequence, last.event_hash, last.created_at, 0, 0))
    if month == end.month:
        counted = end.month_events + len(rows)
    else:
        start = timestamps.month_start(month)
        counted = sum(row.created_at >= start for row in rows)
    return End(last.sequence, last.event_hash, last.created_at, end.quota, month, counted)
