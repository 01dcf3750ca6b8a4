"""`headgate audit`: the administrative acts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click
import orjson

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.tables import table
from headgate_server.cli.values import time_of
from headgate_server.config import StoreConfig
from headgate_server.core import timestamps
from headgate_server.core.audit import RESERVED
from headgate_server.core.model import EventQuery, StoredEvent
from headgate_server.process.setting import build
from headgate_server.reading.filters import type_filter
from headgate_server.rpc import wire
from headgate_server.store import Ledgers

_PAGE_EVENTS = 500
_PAGE_BYTES = 1024 * 1024


@click.command()
@options(StoreConfig)
@click.option("--workspace", default="", help="Only the acts on this workspace.")
@click.option("--type", "type_", default="", help="Only acts of this type, such as key.revoked or 'key.*'.")
@click.option("--from", "from_", metavar="TIME", help="Only acts at this time or later: 2024-01-15T10:30:00Z.")
@click.option("--to", metavar="TIME", help="Only acts before this time.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The most acts, the newest.")
@click.option("--json", "json_", is_flag=True, help="Print the events as JSON, one a line.")
def audit(json_: bool, limit: int, **values: Any) -> None:
    """Show administrative acts: when, who, what, on which workspace. The newest come last.

    An act is an event in the ledger of the workspace _headgate; `headgate ledger verify --workspace _headgate` checks
    that none was changed or removed.
    """

    async def work() -> None:
        types = type_filter(values["type_"])
        created_from, created_to = time_of(values["from_"], "--from"), time_of(values["to"], "--to")
        check_output()
        found: Sequence[StoredEvent] = ()
        async with admin.opened(build(StoreConfig, values).location) as store:
            workspace = await store.directory.workspace(RESERVED)
            if workspace is not None:
                query = EventQuery(
                    workspace_id=workspace.id,
                    limit=_PAGE_EVENTS,
                    type=types.type,
                    type_prefix=types.type_prefix,
                    subject=values["workspace"] or None,
                    newest_first=True,
                    created_from=created_from,
                    created_to=created_to,
                )
                found = await _newest(store.ledgers, query, limit)
        show(*(wire.event_json(event).decode() for event in found) if json_ else _table(found))

    run(work())


async def _newest(ledgers: Ledgers, query: EventQuery, limit: int) -> Sequence[StoredEvent]:
    """Return the newest events that match, the oldest of them first."""
    found: list[StoredEvent] = []
    while True:
        page = await ledgers.events(replace(query, limit=min(limit - len(found), _PAGE_EVENTS), size=_PAGE_BYTES))
        found += page.events
        if page.resume is None or len(found) == limit:
            return found[::-1]
        query = replace(query, after=page.resume)


def _table(events: Sequence[StoredEvent]) -> Iterator[str]:
    rows = [_row(event.created_at, event.type, orjson.loads(event.data or b"{}")) for event in events]
    yield from table(("TIME", "WHO", "ACT", "WORKSPACE", "TARGET", "CHANGE"), rows)


def _row(created_at: int, type_: str, data: dict[str, Any]) -> Sequence[str]:
    actor = data.get("actor", {})
    who = " ".join(str(actor[name]) for name in ("kind", "id") if name in actor)
    when = timestamps.format(created_at)
    return when, who, type_, str(data.get("workspace", "")), str(data.get("target", "")), _change(data)


_MOST_SHOWN = 100


def _change(data: dict[str, Any]) -> str:
    """Return what changed, in short: `name: old → new`. JSON has all of it."""
    before, after = data.get("before") or {}, data.get("after") or {}
    if not before or not after:
        return ""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    text = ", ".join(f"{name}: {_short(before.get(name))} → {_short(after.get(name))}" for name in names)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
