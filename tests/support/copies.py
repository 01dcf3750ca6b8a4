"""Stores that are copied, and everything that is in one."""

import asyncio
from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import BigInteger, Integer, LargeBinary, Text, select

from headgate_server.access.copying import Copied, copy
from headgate_server.cli.commands import headgate
from headgate_server.core.model import Mismatch
from headgate_server.store.opening import open_store
from headgate_server.store.schema import metadata
from headgate_server.store.transfer import LEFT_OUT, ROWS, TABLES
from tests.support.drafts import append, draft

EVENTS = 1000
"""The events of one of the workspaces that `fill` makes."""


def _quiet(_: str) -> None:
    """Print nothing."""


async def copied_now(both: tuple[str, str], **more: Any) -> Copied:
    """Copy the first store into the second one, and print nothing."""
    return await copy(*both, report=_quiet, **more)


async def run(both: tuple[str, str], *more: str) -> Result:
    """Do it by the command."""
    command = ["copy", "--from", both[0], "--to", both[1], *more]
    return await asyncio.to_thread(CliRunner().invoke, headgate, command)


async def send(url: str, *drafts: Any) -> Sequence[str]:
    """Store events, and return their statuses."""
    store = await open_store(url)
    try:
        workspace = await store.directory.create_workspace("acme")
        return [outcome.status for outcome in await append(store, workspace.id, *drafts)]
    finally:
        await store.close()


def value(column: Any, number: int) -> Any:
    """Return a value for a column of the row of this number."""
    kind = column.type
    if column.name == "workspace_id":
        return 1
    if column.nullable and number % 3 == 0:
        return None
    if isinstance(kind, LargeBinary):
        return number.to_bytes(kind.length or 16, "big")
    if isinstance(kind, Text):
        return f"{column.name} {number} é"
    assert isinstance(kind, (BigInteger, Integer)), column
    return number


FILLED = ROWS * 2 + 7
"""The rows of every other table: some pages, and a part of one."""


async def fill(url: str, rows: int = FILLED) -> None:
    """Store events of every kind, and rows in every other table."""
    store = await open_store(url)
    try:
        acme = await store.directory.create_workspace("acme")
        beta = await store.directory.create_workspace("beta")
        await store.directory.create_workspace("empty")
        for first in range(0, EVENTS, 250):
            await append(store, acme.id, *(draft(f"k{n}", {"n": n}) for n in range(first, first + 250)))
        await append(store, beta.id, draft(), draft("a", attributes=b'{"x":"y"}'), draft("b", occurred_at=5))
        await append(store, beta.id, draft("b", {"new": True}, on_mismatch=Mismatch.REPLACE))
        await store.limits.set_quota(acme.id, 1_000_000)
        for table in TABLES:
            columns = metadata.tables[table].columns
            await store.transfer.put(table, [tuple(value(each, n) for each in columns) for n in range(rows)])
    finally:
        await store.close()


async def everything(url: str) -> dict[str, list[Any]]:
    """Return all rows of all tables, sorted."""
    store = await open_store(url, as_is=True, filling=True)
    try:
        return {
            table.name: sorted(
                await store.database.read(
                    lambda connection, table=table: [tuple(row) for row in connection.execute(select(table))]
                ),
                key=repr,
            )
            for table in metadata.sorted_tables
            if table.name not in LEFT_OUT
        }
    finally:
        await store.close()
