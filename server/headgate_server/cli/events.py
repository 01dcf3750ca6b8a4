"""`headgate events`: stored events as NDJSON."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import click

from headgate_server.access import admin
from headgate_server.background.heads import Heads
from headgate_server.background.subscription import Start, Subscriptions
from headgate_server.background.wakeup import Wakeup
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.values import time_of
from headgate_server.config import StoreConfig
from headgate_server.core import ledger
from headgate_server.core.errors import NotFound, SetupError
from headgate_server.core.model import NATIVE, EventQuery, StoredEvent, Workspace
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.process.setting import build
from headgate_server.reading.filters import type_filter
from headgate_server.rpc import wire
from headgate_server.store import Ledgers

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def events() -> None:
    """Read a workspace's events: one JSON object a line, as REST shows them."""


def _of_a_workspace(command: _Command) -> _Command:
    command = click.option("--workspace", required=True, help="Whose events.")(command)
    return options(StoreConfig)(command)


def _filtered(command: _Command) -> _Command:
    command = click.option("--subject", default="", help="Only events of this subject.")(command)
    command = click.option("--source", default="", help="Only events of this source.")(command)
    return click.option(
        "--type", "type_", default="", help="Only events of this type, such as order.completed or 'order.*'."
    )(command)


@events.command("list")
@_of_a_workspace
@_filtered
@click.option("--from", "from_", metavar="TIME", help="Only events stored at this time or later: 2024-01-15T10:30:00Z.")
@click.option("--to", metavar="TIME", help="Only events stored before this time.")
@click.option("--idempotency-key", help="Only the event with this key, within --source.")
@click.option("--newest-first", is_flag=True, help="Begin with the newest event.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The most events to print.")
def list_(workspace: str, limit: int, idempotency_key: str | None, newest_first: bool, **values: Any) -> None:
    """Print stored events, the oldest first."""

    async def work() -> None:
        query = _query(values)
        if idempotency_key is not None:
            identity = ledger.identity(NATIVE, values["source"], idempotency_key)
            query = replace(query, dedupe=ledger.dedupe_of(identity))
        query = replace(
            query,
            created_from=time_of(values["from_"], "--from"),
            created_to=time_of(values["to"], "--to"),
            newest_first=newest_first,
        )
        async with _opened(values, workspace) as (ledgers, found):
            await _print_pages(ledgers, replace(query, workspace_id=found.id), limit)

    run(work())


@events.command("get")
@_of_a_workspace
@click.argument("event_id", metavar="ID")
def get(workspace: str, event_id: str, **values: Any) -> None:
    """Print the event with this ID."""

    async def work() -> None:
        try:
            identifier = EventId(UUID(event_id).bytes)
        except ValueError:
            raise SetupError(f"{event_id!r} is not an event's id: an id is a UUID") from None
        async with _opened(values, workspace) as (ledgers, found):
            event = await ledgers.fetch(found.id, [identifier])
        if not event:
            raise NotFound(f"there is no event {event_id} in the workspace {workspace!r}")
        show(_line(event[0]))

    run(work())


@events.command("tail")
@_of_a_workspace
@_filtered
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="SEQUENCE",
    help="Begin after this sequence; 0 is the beginning. Without it: only events that are stored from now on.",
)
def tail(workspace: str, after: int | None, **values: Any) -> None:
    """Print events as they are stored, until Ctrl-C."""

    async def work() -> None:
        check_output()
        async with _opened(values, workspace) as (ledgers, found):
            heads = Heads(ledgers, Wakeup())
            looking = asyncio.ensure_future(heads())
            stream = Subscriptions(ledgers, heads).follow(
                replace(_query(values), workspace_id=found.id), Start(after_sequence=after)
            )
            try:
                async with contextlib.aclosing(stream):
                    async for item in stream:
                        if isinstance(item, StoredEvent):
                            show(_line(item))
            finally:
                looking.cancel()

    run(work())


async def _print_pages(ledgers: Ledgers, query: EventQuery, limit: int) -> None:
    check_output()
    while True:
        page = await ledgers.events(replace(query, limit=min(limit, _PAGE_EVENTS), size=_PAGE_BYTES))
        show(*map(_line, page.events))
        limit -= len(page.events)
        if page.resume is None or limit == 0:
            return
        query = replace(query, after=page.resume)


@contextlib.asynccontextmanager
async def _opened(values: dict[str, Any], name: str) -> AsyncIterator[tuple[Ledgers, Workspace]]:
    """Open the store's ledgers, and find the workspace. Raises `NotFound` if there is no such workspace."""
    async with admin.opened(build(StoreConfig, values).location) as store:
        workspace = await store.directory.workspace(name)
        if workspace is None:
            raise NotFound(f"there is no workspace {name!r}")
        yield store.ledgers, workspace


_NOT_FOUND_YET = WorkspaceId(0)
"""The placeholder for the workspace in a query. The query is made before the store is opened, so that a bad option is
reported first.
"""


def _query(values: dict[str, Any]) -> EventQuery:
    """Return the query of the options of `_filtered`."""
    types = type_filter(values["type_"])
    return EventQuery(
        workspace_id=_NOT_FOUND_YET,
        limit=_PAGE_EVENTS,
        type=types.type,
        type_prefix=types.type_prefix,
        source=values["source"] or None,
        subject=values["subject"] or None,
    )


def _line(event: StoredEvent) -> str:
    return wire.event_json(event).decode()
