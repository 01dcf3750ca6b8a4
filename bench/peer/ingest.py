"""From a batch to its results, in one transaction of a session."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peer.models import Event
from bench.peer.schemas import EVENT, EventError, EventIn, EventResult

Key = tuple[str, str | None]
"""Source and idempotency key: what is unique within a tenant."""

_CONFLICT = EventError(
    reason="IDEMPOTENCY_CONFLICT",
    field="idempotency_key",
    message="Another event with other content is stored under this idempotency key.",
)


class _Decided(NamedTuple):
    """What becomes of a valid event, and the row that says so: a new one has its id only when it was flushed."""

    status: Literal["accepted", "duplicate", "conflict"]
    row: Event


async def ingest(session: AsyncSession, tenant_id: int, items: Sequence[Any]) -> list[EventResult]:
    """Store what is new, and commit. One result per item, in order."""
    parsed = [_parse(index, item) for index, item in enumerate(items)]
    events = [event for event in parsed if isinstance(event, EventIn)]
    known = await _stored(session, tenant_id, {_key(event) for event in events if event.idempotency_key is not None})
    decided = [
        event if isinstance(event, EventResult) else _decide(event, tenant_id, known, datetime.now(UTC))
        for event in parsed
    ]
    new = [one.row for one in decided if isinstance(one, _Decided) and one.status == "accepted"]
    overtaken: dict[Event, Event] = {}
    try:
        async with session.begin_nested():
            session.add_all(new)
            await session.flush()
    except IntegrityError:
        # A concurrent request stored one of the keys after the look-up; one by one it is found out which.
        overtaken = await _add_each(session, tenant_id, new)
    results = [
        one if isinstance(one, EventResult) else _result(index, one, overtaken) for index, one in enumerate(decided)
    ]
    await session.commit()
    return results


def _parse(index: int, item: Any) -> EventIn | EventResult:
    try:
        return EVENT.validate_python(item)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        reason = EventError(reason=first["type"].upper(), field=".".join(map(str, first["loc"])), message=first["msg"])
        return EventResult(index=index, status="rejected", error=reason)


def _key(event: EventIn | Event) -> Key:
    return event.source, event.idempotency_key


def _content_hash(event: EventIn) -> bytes:
    content = event.model_dump(exclude={"idempotency_key"})
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


async def _stored(session: AsyncSession, tenant_id: int, keys: Iterable[Key]) -> dict[Key, Event]:
    """Return the tenant's events under these keys, and perhaps more. Two lists and not one of pairs, for which
    PostgreSQL has no good plan.
    """
    wanted = list(keys)
    if not wanted:
        return {}
    statement = select(Event).where(
        Event.tenant_id == tenant_id,
        Event.source.in_({source for source, _ in wanted}),
        Event.idempotency_key.in_({key for _, key in wanted}),
    )
    return {_key(row): row for row in await session.scalars(statement)}


def _decide(event: EventIn, tenant_id: int, known: dict[Key, Event], now: datetime) -> _Decided:
    """Say what becomes of an event; a new one is known to those after it."""
    content_hash = _content_hash(event)
    if event.idempotency_key is not None and (row := known.get(_key(event))) is not None:
        return _Decided("duplicate" if row.content_hash == content_hash else "conflict", row)
    row = Event(
        tenant_id=tenant_id,
        type=event.type,
        source=event.source,
        subject=event.subject,
        occurred_at=event.occurred_at,
        data=event.data,
        idempotency_key=event.idempotency_key,
        content_hash=content_hash,
        created_at=now,
    )
    if event.idempotency_key is not None:
        known[_key(event)] = row
    return _Decided("accepted", row)


async def _add_each(session: AsyncSession, tenant_id: int, rows: Sequence[Event]) -> dict[Event, Event]:
    """Add rows one by one; return, for each that somebody else was faster with, what is stored in its place."""
    overtaken = {}
    for row in rows:
        try:
            async with session.begin_nested():
                session.add(row)
                await session.flush()
        except IntegrityError:
            overtaken[row] = (await _stored(session, tenant_id, [_key(row)]))[_key(row)]
    return overtaken


def _result(index: int, decided: _Decided, overtaken: dict[Event, Event]) -> EventResult:
    status, row = decided
    if (stored := overtaken.get(row)) is not None:
        status = "duplicate" if stored.content_hash == row.content_hash and status != "conflict" else "conflict"
        row = stored
    return EventResult(
        index=index,
        status=status,
        id=row.id,
        created_at=row.created_at,
        error=_CONFLICT if status == "conflict" else None,
    )
