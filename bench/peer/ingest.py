"""Turns a batch into its results, in one transaction of a session."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peer.models import EVENT, Event, EventIn, EventResult

Key = tuple[str, str | None]  # source and idempotency key: unique within a tenant


async def ingest(session: AsyncSession, tenant_id: int, items: Sequence[Any]) -> list[EventResult]:
    """Store the new events, and commit. Return one result for each item, in order."""
    parsed = list(map(_parse, items))
    events = [event for event in parsed if isinstance(event, EventIn)]
    known = await _stored(session, tenant_id, {_key(event) for event in events if event.idempotency_key is not None})
    decided = [_decide(event, tenant_id, known) if isinstance(event, EventIn) else event for event in parsed]
    session.add_all(row for status, row in decided if status == "accepted")
    try:
        await session.flush()
    except IntegrityError:
        # A concurrent request stored one of the keys after the look-up: now it is found.
        await session.rollback()
        return await ingest(session, tenant_id, items)
    results = [_result(index, status, row) for index, (status, row) in enumerate(decided)]
    await session.commit()
    return results


def _parse(item: Any) -> EventIn | tuple[str, str]:
    try:
        event: EventIn = EVENT.validate_python(item)
        return event
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return "rejected", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _key(event: EventIn | Event) -> Key:
    return event.source, event.idempotency_key


async def _stored(session: AsyncSession, tenant_id: int, wanted: set[Key]) -> dict[Key, Event]:
    """Return the tenant's events under these keys, and perhaps more: for pairs PostgreSQL has no good plan."""
    sources, keys = {source for source, _ in wanted}, {key for _, key in wanted}
    within = (Event.tenant_id == tenant_id, Event.source.in_(sources), Event.idempotency_key.in_(keys))
    return {_key(row): row for row in await session.scalars(select(Event).where(*within))} if wanted else {}


def _decide(event: EventIn, tenant_id: int, known: dict[Key, Event]) -> tuple[str, Event]:
    """Return an event's result and its row. A new row is known to the later events of the batch."""
    content = event.model_dump(exclude={"idempotency_key"})
    content_hash = sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()
    if event.idempotency_key is not None and (row := known.get(_key(event))) is not None:
        return "duplicate" if row.content_hash == content_hash else "conflict", row
    known_by = {"tenant_id": tenant_id, "idempotency_key": event.idempotency_key, "content_hash": content_hash}
    row = Event(created_at=datetime.now(UTC), **known_by, **content)
    if event.idempotency_key is not None:
        known[_key(event)] = row
    return "accepted", row


def _result(index: int, status: str, row: Event | str) -> EventResult:
    if isinstance(row, str):
        return EventResult(index=index, status=status, error=row)
    error = "Other content is stored under this idempotency key." if status == "conflict" else None
    return EventResult(index=index, status=status, id=row.id, created_at=row.created_at, error=error)
